//! `--secret`: files and variables that RUN may see and no layer, history or key holds.

use std::path::PathBuf;

use crate::error::{Context, Error, Result};

/// Where a secret's value is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Origin {
    File(PathBuf),
    Variable(String),
}

/// One secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secret {
    /// The name by which RUN asks for it.
    pub id: String,
    origin: Origin,
}

/// The largest secret that is read, in bytes.
const MAX_SIZE: u64 = 512 << 10;

/// Parses `id=NAME[,src=FILE|,env=VARIABLE]`; without either it is the variable or file NAME.
pub fn parse(text: &str) -> std::result::Result<Secret, String> {
    let (mut id, mut origin) = (None, None);
    for field in text.split(',') {
        match field.split_once('=') {
            Some(("id", value)) if !value.is_empty() => id = Some(value.to_owned()),
            Some(("src" | "source", value)) => origin = Some(Origin::File(value.into())),
            Some(("env", value)) => origin = Some(Origin::Variable(value.to_owned())),
            Some(("type", "file")) if origin.is_none() => {}
            Some(("type", "env")) => {}
            _ => {
                return Err(format!(
                    "unexpected {field:?}: expected id=NAME,src=FILE or id=NAME,env=VARIABLE"
                ));
            }
        }
    }
    let id = id.ok_or("a secret needs id=NAME")?;
    let origin = origin.unwrap_or_else(|| Origin::File(id.clone().into()));
    Ok(Secret { id, origin })
}

impl Secret {
    /// Reads the value.
    pub fn read(&self) -> Result<Vec<u8>> {
        let what = || format!("secret {}", self.id);
        match &self.origin {
            Origin::Variable(name) => match std::env::var_os(name) {
                Some(value) => Ok(value.into_encoded_bytes()),
                None => Err(Error::new(format!("the variable {name} is not set")).wrap(what())),
            },
            Origin::File(path) => {
                let size =
                    std::fs::metadata(path).wrap(|| path.display().to_string()).wrap(what)?.len();
                if size > MAX_SIZE {
                    return Err(Error::new(format!(
                        "{} is larger than {MAX_SIZE} bytes",
                        path.display()
                    ))
                    .wrap(what()));
                }
                std::fs::read(path).wrap(|| path.display().to_string()).wrap(what)
            }
        }
    }
}
