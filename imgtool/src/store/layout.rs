//! A store as a plain OCI image layout, whose entries are labelled as other tools label them: by
//! `org.opencontainers.image.ref.name` alone, which may be any text (image-spec, annotations.md).

use super::Store;
use super::index::{IMAGE_NAME, REF_NAME};
use crate::descriptor::Descriptor;
use crate::order;
use crate::{Context, Error, Result};

impl Store {
    /// The entry with this label, which is a `ref.name` or a complete name; without one, the only
    /// entry there is.
    pub fn labelled(&self, label: Option<&str>) -> Result<Descriptor> {
        let entries = self.entries()?;
        let has = |e: &Descriptor, label: &str| {
            [REF_NAME, IMAGE_NAME].iter().any(|k| e.annotations.get(*k).is_some_and(|v| v == label))
        };
        let labels = || {
            let mut all: Vec<&str> =
                entries.iter().filter_map(|e| Some(&**e.annotations.get(REF_NAME)?)).collect();
            order::sort(&mut all);
            all.join(", ")
        };
        let at = self.root().display();
        match (label, &entries[..]) {
            (Some(label), _) => {
                let found = entries.iter().find(|e| has(e, label));
                found.cloned().ok_or_else(|| {
                    Error::not_found(format!(
                        "no image \"{label}\" in {at}; there are: {}",
                        labels()
                    ))
                })
            }
            (None, []) => Err(Error::not_found(format!("no image in {at}"))),
            (None, [first, rest @ ..]) if rest.iter().all(|e| e.digest == first.digest) => {
                Ok(first.clone())
            }
            (None, _) => {
                Err(Error::new(format!("{at} has several images, so say which: {}", labels())))
            }
        }
    }

    /// Makes a label stand for `descriptor`, and for nothing else; without one, the entry has
    /// none. Idempotent. The blobs must be there already.
    pub fn label(&self, label: Option<&str>, descriptor: &Descriptor) -> Result<()> {
        let mut entry = descriptor.bare();
        let Some(label) = label else { return self.keep(&entry) };
        entry.annotations.insert(REF_NAME.into(), label.into());
        self.change_index(|entries| {
            entries.retain(|e| e.annotations.get(REF_NAME).is_none_or(|v| v != label));
            entries.push(entry.clone());
            true
        })
        .wrap(|| format!("label {label}"))
    }
}
