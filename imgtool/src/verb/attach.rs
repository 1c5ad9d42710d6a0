//! `imgtool attach` and `discover`, `artifact push` and `artifact pull`: files in a registry, and
//! what refers to an image.

use std::collections::BTreeMap;
use std::io::copy;
use std::path::{Path, PathBuf};

use crate::cli::Globals;
use crate::descriptor::Descriptor;
use crate::image::Document;
use crate::progress::Progress;
use crate::reference::Reference;
use crate::registry::{self, Artifact, BlobSource, Jobs, Options, Pieces, Remote, UploadOptions};
use crate::verb::push::at_digest;
use crate::verb::tags::remote_name;
use crate::{Context, Error, Result, output};

/// What an artifact is made of.
#[derive(Debug, clap::Args)]
pub struct Files {
    /// What the artifact is, as a media type
    #[arg(long, value_name = "TYPE")]
    artifact_type: String,
    /// Say something about it
    #[arg(long, value_name = "KEY=VALUE")]
    annotation: Vec<String>,
    #[command(flatten)]
    registry: Options,
    #[command(flatten)]
    jobs: Jobs,
    #[command(flatten)]
    pieces: Pieces,
}

/// Arguments of `attach`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    what: Files,
    /// The image in a registry: [docker://][HOST[:PORT]/]NAME[:TAG|@DIGEST]
    image: String,
    /// The files, each with its media type, if that is not application/octet-stream
    #[arg(value_name = "FILE[:TYPE]", required = true)]
    files: Vec<String>,
}

/// Attaches files to an image and says by which digest they can be had.
pub fn run(args: Args, globals: &Globals) -> Result<()> {
    let name = remote_name(&args.image)?;
    let progress = Progress::new(globals.quiet);
    let attach = || -> Result<Descriptor> {
        let remote = Remote::writing(&name, &args.what.registry, &progress)?;
        let (subject, _) = remote.named(&name)?;
        args.what.push(&remote, &args.files, Some(&subject), None)
    };
    let descriptor = attach().wrap(|| format!("attach to {}", name.familiar()))?;
    output::print(&format!("{}\n", name.with_digest(descriptor.digest)))
}

impl Files {
    fn push(
        &self,
        remote: &Remote,
        files: &[String],
        subject: Option<&Descriptor>,
        tag: Option<&str>,
    ) -> Result<Descriptor> {
        let files: Vec<_> = files.iter().map(|f| with_type(f)).collect();
        let annotations = annotations(&self.annotation)?;
        let artifact = Artifact::new(&self.artifact_type, &files, &annotations, subject)?;
        let how = UploadOptions::new(self.jobs, self.pieces);
        artifact.push(remote, tag, how).cloned()
    }
}

/// A colon in a name counts only if a media type, which has a slash, follows it.
fn with_type(text: &str) -> (PathBuf, String) {
    match text.rsplit_once(':') {
        Some((path, t)) if t.contains('/') && !Path::new(text).exists() => (path.into(), t.into()),
        _ => (text.into(), "application/octet-stream".into()),
    }
}

fn annotations(given: &[String]) -> Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    for text in given {
        match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => all.insert(key.to_owned(), value.to_owned()),
            _ => return Err(Error::usage(format!("\"{text}\": expected KEY=VALUE"))),
        };
    }
    Ok(all)
}

/// Arguments of `discover`.
#[derive(Debug, clap::Args)]
pub struct DiscoverArgs {
    /// Only artifacts of this type
    #[arg(long, value_name = "TYPE")]
    artifact_type: Option<String>,
    /// Write a JSON list of descriptors
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    registry: Options,
    /// The image in a registry: [docker://][HOST[:PORT]/]NAME[:TAG|@DIGEST]
    image: String,
}

/// Lists what refers to an image.
pub fn discover(args: DiscoverArgs, globals: &Globals) -> Result<()> {
    let name = remote_name(&args.image)?;
    let progress = Progress::new(globals.quiet);
    let find = || -> Result<Vec<Descriptor>> {
        let remote = Remote::reading(&name, &args.registry, &progress)?;
        let digest = match name.digest() {
            Some(digest) => digest.clone(),
            None => remote.named(&name)?.0.digest,
        };
        remote.referrers(&digest, args.artifact_type.as_deref())
    };
    let found = find().wrap(|| format!("referrers of {}", name.familiar()))?;
    if args.json {
        return output::print(&(serde_json::to_string_pretty(&found)? + "\n"));
    }
    let line = |d: &Descriptor| format!("{}  {}", d.digest, registry::type_of(d).unwrap_or("-"));
    output::print(&output::lines(&found.iter().map(line).collect::<Vec<_>>()))
}

/// Arguments of `artifact`.
#[derive(Debug, clap::Args)]
pub struct ArtifactArgs {
    #[command(subcommand)]
    verb: ArtifactVerb,
}

#[derive(Debug, clap::Subcommand)]
enum ArtifactVerb {
    /// Put files into a registry, under a name of their own
    Push(ArtifactPush),
    /// Get the files of an artifact from a registry
    Pull(ArtifactPull),
}

#[derive(Debug, clap::Args)]
struct ArtifactPush {
    #[command(flatten)]
    what: Files,
    /// Where to: [docker://][HOST[:PORT]/]NAME[:TAG]
    name: String,
    /// The files, each with its media type, if that is not application/octet-stream
    #[arg(value_name = "FILE[:TYPE]", required = true)]
    files: Vec<String>,
}

#[derive(Debug, clap::Args)]
struct ArtifactPull {
    #[command(flatten)]
    registry: Options,
    /// Where to write the files, which must exist
    #[arg(long, short, value_name = "DIR", default_value = ".")]
    output: PathBuf,
    /// The artifact: [docker://][HOST[:PORT]/]NAME[:TAG|@DIGEST]
    name: String,
}

/// Moves the files of an artifact.
pub fn artifact(args: ArtifactArgs, globals: &Globals) -> Result<()> {
    let progress = Progress::new(globals.quiet);
    match args.verb {
        ArtifactVerb::Push(args) => {
            let name = remote_name(&args.name)?;
            let push = || -> Result<Descriptor> {
                let tag = name.tag().ok_or_else(|| Error::usage("a destination needs a tag"))?;
                let remote = Remote::writing(&name, &args.what.registry, &progress)?;
                args.what.push(&remote, &args.files, None, Some(tag))
            };
            let pushed = push().wrap(|| format!("push {}", name.familiar()))?;
            output::print(&format!("{}\n", at_digest(&name, &pushed.digest)))
        }
        ArtifactVerb::Pull(args) => {
            let name = remote_name(&args.name)?;
            let written =
                pull(&name, &args, &progress).wrap(|| format!("pull {}", name.familiar()))?;
            output::print(&output::lines(&written))
        }
    }
}

/// Writes every layer that has a title, whole or not at all, and says which files they are.
fn pull(name: &Reference, args: &ArtifactPull, progress: &Progress) -> Result<Vec<String>> {
    let remote = Remote::reading(name, &args.registry, progress)?;
    let (_, Document::Manifest(manifest)) = remote.named(name)? else {
        return Err(Error::new("it is an index, not an artifact"));
    };
    let mut written = Vec::new();
    for layer in &manifest.layers {
        let Some(title) = layer.annotations.get(registry::TITLE) else { continue };
        let plain = Path::new(title).file_name().is_some_and(|n| n == &**title);
        if !plain || title.contains('\0') {
            return Err(Error::new(format!("the title \"{title}\" is not the name of a file")));
        }
        let path = args.output.join(title);
        output::to_file(&path, |out| {
            copy(&mut remote.open(layer, 0, layer.size)?, out)?;
            Ok(())
        })
        .wrap(|| format!("write {}", path.display()))?;
        written.push(path.display().to_string());
    }
    match written.is_empty() {
        true => Err(Error::new("none of its layers is a file with a name")),
        false => Ok(written),
    }
}
