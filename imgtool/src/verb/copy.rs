//! `imgtool copy`: an image from one place to another.

use std::path::PathBuf;

use serde_json::json;

use crate::cli::Globals;
use crate::copy::{self, CopyOptions, Place, Selection};
use crate::platform::Platform;
use crate::progress::Progress;
use crate::registry::{Jobs, Options, Pieces, UploadOptions};
use crate::{Context, Result, output};

/// Arguments of `copy`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Places:
  docker://[HOST[:PORT]/]NAME[:TAG][@DIGEST]  a registry
  oci:DIR[:LABEL]                             an OCI image layout
  oci-archive:FILE[:LABEL]                    an OCI image layout as a tar
  docker-archive:FILE[:NAME]                  an archive as docker save writes it
  [store:]IMAGE                               the store")]
pub struct Args {
    /// Copy a multi-platform index whole, instead of this machine's image alone
    #[arg(long, conflicts_with = "platform")]
    all: bool,
    /// Copy the image for this platform; of several, a new index of their images
    #[arg(long, value_name = "OS/ARCH,...", value_delimiter = ',')]
    platform: Vec<Platform>,
    /// Write what was copied as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    registry: Options,
    /// Read credentials for the source from this file only
    #[arg(long, value_name = "FILE")]
    src_authfile: Option<PathBuf>,
    /// Read credentials for the destination from this file only
    #[arg(long, value_name = "FILE")]
    dest_authfile: Option<PathBuf>,
    /// Talk plain HTTP with the source
    #[arg(long)]
    src_plain_http: bool,
    /// Talk plain HTTP with the destination
    #[arg(long)]
    dest_plain_http: bool,
    #[command(flatten)]
    jobs: Jobs,
    #[command(flatten)]
    pieces: Pieces,
    /// Where the image is
    source: Place,
    /// Where to copy it
    destination: Place,
}

/// Copies the image and says the destination with the digest that it has there.
pub fn run(args: Args, globals: &Globals) -> Result<()> {
    let progress = Progress::new(globals.quiet);
    let what = match &args.platform[..] {
        [] if args.all => Selection::All,
        [] => Selection::Host,
        [one] => Selection::One(one.clone()),
        several => Selection::Some(several.to_vec()),
    };
    let side = |authfile: Option<PathBuf>, plain_http: bool| Options {
        authfile: authfile.or(args.registry.authfile.clone()),
        plain_http: plain_http || args.registry.plain_http,
        ..args.registry.clone()
    };
    let how = CopyOptions {
        what,
        from: side(args.src_authfile, args.src_plain_http),
        to: side(args.dest_authfile, args.dest_plain_http),
        uploads: UploadOptions::new(args.jobs, args.pieces),
    };
    let (from, to) = (&args.source, &args.destination);
    let copied = copy::copy(from, to, &how, &|| globals.open_store(), &progress)
        .wrap(|| format!("copy {from} to {to}"))?;
    if let Some(index) = &copied.index {
        progress.line(&format!(
            "of the index {}, {} was copied",
            index.digest,
            describe(&how.what)
        ));
    }
    let digest = &copied.descriptor.digest;
    output::print(&match args.json {
        false => format!("{to} {digest}\n"),
        true => {
            let json = json!({
                "source": from.to_string(),
                "destination": to.to_string(),
                "digest": digest,
                "mediaType": copied.descriptor.media_type,
                "size": copied.descriptor.size,
                "fromIndex": copied.index.map(|i| i.digest),
            });
            serde_json::to_string_pretty(&json)? + "\n"
        }
    })
}

fn describe(what: &Selection) -> String {
    match what {
        Selection::All => "all".into(),
        Selection::Host => format!("only the image for {}", Platform::host()),
        Selection::One(platform) => format!("only the image for {platform}"),
        Selection::Some(platforms) => {
            let all: Vec<String> = platforms.iter().map(ToString::to_string).collect();
            format!("a new index of the images for {}", all.join(", "))
        }
    }
}
