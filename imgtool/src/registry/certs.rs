//! Certificates: whom we believe, and by what we prove ourselves (containers-certs.d(5)).
//!
//! The authorities of the system, and those of `--cacert`, count for every host. What a
//! directory `certs.d/HOST[:PORT]` holds counts for that host alone: its `*.crt` are authorities,
//! and a `NAME.cert` with its `NAME.key` is shown to it, never to a token service or to where it
//! redirects.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey};

use super::Options;
use crate::order;
use crate::{Context, Error, Result};

const CA_BUNDLES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// What counts for one host alone.
#[derive(Debug, Default)]
pub(super) struct HostCerts {
    pub(super) authorities: Vec<Certificate<'static>>,
    pub(super) client: Option<ClientCert>,
}

/// The authorities for every host: those of the system, and those asked for.
pub(super) fn authorities(options: &Options) -> Result<Vec<Certificate<'static>>> {
    let named = std::env::var_os("SSL_CERT_FILE").filter(|v| !v.is_empty());
    let mut certs = match &named {
        Some(path) => read_certs(path.as_ref())?,
        None => CA_BUNDLES.iter().find_map(|p| read_certs(p.as_ref()).ok()).unwrap_or_default(),
    };
    if let Some(path) = &options.cacert {
        certs.extend(read_certs(path)?);
    }
    Ok(certs)
}

/// What the directory for this host holds: `--cert-dir`, or the first that there is.
pub(super) fn of_host(domain: &str, options: &Options) -> Result<HostCerts> {
    let dir = match &options.cert_dir {
        Some(dir) => dir.clone(),
        None => match directories(domain).into_iter().find(|d| d.is_dir()) {
            Some(dir) => dir,
            None => return Ok(HostCerts::default()),
        },
    };
    read_dir(&dir).wrap(|| format!("read certificates in {}", dir.display()))
}

/// In the order in which podman looks.
fn directories(domain: &str) -> Vec<PathBuf> {
    let var = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let config = var("XDG_CONFIG_HOME").or_else(|| Some(var("HOME")?.join(".config")));
    let own = config.map(|c| c.join("containers/certs.d"));
    let system = ["/etc/containers/certs.d", "/etc/docker/certs.d"].map(PathBuf::from);
    own.into_iter().chain(system).map(|d| d.join(domain)).collect()
}

fn read_dir(dir: &Path) -> Result<HostCerts> {
    let mut certs = HostCerts::default();
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        paths.push(entry?.path());
    }
    order::sort(&mut paths);
    for path in &paths {
        match path.extension().and_then(OsStr::to_str) {
            Some("crt") => certs.authorities.extend(read_certs(path)?),
            Some("cert") if certs.client.is_none() => certs.client = Some(client(path)?),
            Some("key") if !path.with_extension("cert").exists() => {
                return Err(Error::new(format!(
                    "{} has no certificate, {}",
                    path.display(),
                    path.with_extension("cert").display()
                )));
            }
            _ => {}
        }
    }
    Ok(certs)
}

fn client(cert: &Path) -> Result<ClientCert> {
    let key = cert.with_extension("key");
    let context = || format!("read the key {}", key.display());
    let pem = std::fs::read(&key).wrap(context)?;
    let parsed = PrivateKey::from_pem(&pem).map_err(|e| Error::new(e.to_string()));
    Ok(ClientCert::new_with_certs(&read_certs(cert)?, parsed.wrap(context)?))
}

fn read_certs(path: &Path) -> Result<Vec<Certificate<'static>>> {
    let context = || format!("read certificates from {}", path.display());
    let pem = std::fs::read(path).wrap(context)?;
    let mut certs = Vec::new();
    for item in ureq::tls::parse_pem(&pem) {
        match item {
            Ok(PemItem::Certificate(cert)) => certs.push(cert),
            Ok(_) => {}
            Err(e) => return Err(Error::new(e.to_string()).wrap(context())),
        }
    }
    match certs.is_empty() {
        true => Err(Error::new("there is none").wrap(context())),
        false => Ok(certs),
    }
}
