//! What `checkpoint` and `restore` have in common on the command line, checked.

use super::rpc::{self, CgroupMode};
use crate::error::{Context, Error, Kind, Result};
use crate::plan::namespaces::Namespaces;
use crate::sys::{fs, process};
use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Options of either verb.
#[derive(Debug, Clone, Default)]
pub struct Common {
    /// Directory of the images.
    pub image_path: Option<PathBuf>,
    /// Directory of the log.
    pub work_path: Option<PathBuf>,
    /// Allow established TCP connections.
    pub tcp_established: bool,
    /// Allow unix sockets whose other end is outside.
    pub ext_unix_sk: bool,
    /// Allow a terminal and a session that are the caller's.
    pub shell_job: bool,
    /// Allow file locks.
    pub file_locks: bool,
    /// What becomes of control groups.
    pub manage_cgroups: Option<CgroupMode>,
    /// Namespaces whose content is left out, as CLONE_NEW* flags.
    pub empty_ns: u32,
    /// Drop from earlier images what later ones have.
    pub auto_dedup: bool,
    /// Memory is left behind, and fetched when it is touched.
    pub lazy_pages: bool,
}

impl Common {
    /// The options that go to criu as they are.
    pub fn to_rpc(&self) -> rpc::Options {
        let mode = self.manage_cgroups.unwrap_or(CgroupMode::Soft);
        rpc::Options {
            tcp_established: Some(self.tcp_established),
            ext_unix_sk: Some(self.ext_unix_sk),
            shell_job: Some(self.shell_job),
            file_locks: Some(self.file_locks),
            manage_cgroups: Some(mode != CgroupMode::Ignore),
            manage_cgroups_mode: Some(mode.into()),
            empty_ns: Some(self.empty_ns).filter(|flags| *flags != 0),
            auto_dedup: Some(self.auto_dedup),
            lazy_pages: Some(self.lazy_pages),
            log_level: Some(4),
            notify_scripts: Some(true),
            orphan_pts_master: Some(true),
            ..rpc::Options::default()
        }
    }

    /// The images' directory; `checkpoint` in the working directory if none is named.
    pub fn images(&self) -> PathBuf {
        self.image_path.clone().unwrap_or_else(|| PathBuf::from("checkpoint"))
    }
}

/// The two directories, open.
pub struct Directories {
    /// That of the images.
    pub images: OwnedFd,
    images_path: PathBuf,
    work: Option<OwnedFd>,
    log: PathBuf,
}

impl Directories {
    /// Opens them; with `make`, those that are missing are made.
    pub fn open(common: &Common, log: &str, make: bool) -> Result<Self> {
        let images_path = common.images();
        let images = directory("--image-path", &images_path, make)?;
        let work_path = common.work_path.as_ref();
        let work = work_path.map(|path| directory("--work-path", path, true)).transpose()?;
        let log = work_path.unwrap_or(&images_path).join(log);
        Ok(Self { images, images_path, work, log })
    }

    /// Lets the root of a user namespace, as whom criu reads at the end of a restore, through to the
    /// images: as their group, so that nobody else is let in. (At its beginning nobody is mapped
    /// yet, and it is their owner who reads.)
    pub fn open_to(&self, namespaces: &Namespaces) -> Result<()> {
        let Some(gid) = Namespaces::outside(&namespaces.gid_map, 0) else { return Ok(()) };
        let st = fs::fstat(&self.images)?;
        if st.st_mode & 0o001 != 0 {
            return Ok(());
        }
        fs::fchown(&self.images, u32::MAX, gid)
            .and_then(|()| fs::fchmod(&self.images, st.st_mode & 0o7777 | 0o010))
            .wrap(|| "--image-path: open it to the user namespace")
    }

    /// Tells criu about them.
    pub fn enter_into(&self, opts: &mut rpc::Options) {
        opts.images_dir_fd = self.images.as_raw_fd();
        opts.work_dir_fd = self.work.as_ref().map(|fd| fd.as_raw_fd());
        opts.log_file = self.log.file_name().map(|name| name.to_string_lossy().into_owned());
    }

    /// Those that criu needs in its own mount namespace, with their paths.
    pub fn opened(&self) -> Result<Vec<(BorrowedFd<'_>, PathBuf)>> {
        let work = self.work.as_ref().map(|fd| (fd.as_fd(), self.log.parent()));
        let all = [Some((self.images.as_fd(), Some(self.images_path.as_path()))), work];
        let absolute = |(fd, path): (_, Option<&Path>)| {
            let path = path.unwrap_or(Path::new("."));
            Ok((fd, std::path::absolute(path).wrap(|| format!("find {}", path.display()))?))
        };
        all.into_iter().flatten().map(absolute).collect()
    }

    /// criu's log, absolute where that can be told.
    pub fn log(&self) -> PathBuf {
        std::path::absolute(&self.log).unwrap_or_else(|_| self.log.clone())
    }
}

fn directory(option: &str, path: &Path, make: bool) -> Result<OwnedFd> {
    use std::os::unix::fs::DirBuilderExt as _;
    if make {
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.wrap(|| format!("{option}: make {}", path.display()))?;
    }
    fs::openat(fs::CWD, path, libc::O_RDONLY | libc::O_DIRECTORY, 0).wrap(|| option.to_owned())
}

/// criu as it is used here needs the privileges of root on the host.
pub fn require_root(verb: &str) -> Result<()> {
    match process::euid() {
        0 => Ok(()),
        uid => Err(Error::new(format!("{verb} needs root, which user {uid} is not"))),
    }
}

/// `--empty-ns`: only a network namespace can be left empty.
pub fn empty_ns(names: &[String]) -> Result<u32> {
    match names.iter().find(|name| *name != "network") {
        Some(other) => {
            Err(usage(format!("--empty-ns {other:?}: only \"network\" can be left empty")))
        }
        None if names.is_empty() => Ok(0),
        None => Ok(libc::CLONE_NEWNET as u32),
    }
}

/// `--manage-cgroups-mode`.
pub fn cgroup_mode(name: Option<&str>) -> Result<Option<CgroupMode>> {
    Ok(Some(match name {
        None => return Ok(None),
        Some("soft") => CgroupMode::Soft,
        Some("full") => CgroupMode::Full,
        Some("strict") => CgroupMode::Strict,
        Some("ignore") => CgroupMode::Ignore,
        Some(other) => {
            return Err(usage(format!(
                "--manage-cgroups-mode {other:?}: is none of soft, full, strict, ignore"
            )));
        }
    }))
}

/// `--page-server ADDRESS:PORT`, with an IPv6 address in brackets.
pub fn page_server(given: &str) -> Result<rpc::PageServer> {
    let wrong = || usage(format!("--page-server {given:?}: is not ADDRESS:PORT"));
    let (address, port) = given.rsplit_once(':').ok_or_else(wrong)?;
    let address = address.trim_start_matches('[').trim_end_matches(']');
    let port = port.parse::<u16>().ok().filter(|port| *port != 0).ok_or_else(wrong)?;
    if address.parse::<std::net::IpAddr>().is_err() && address != "localhost" {
        return Err(wrong());
    }
    Ok(rpc::PageServer { address: Some(address.into()), port: Some(port.into()) })
}

/// A file with more options: that of the annotation, or the administrator's.
pub fn config_file(annotations: &BTreeMap<String, String>) -> Option<String> {
    match annotations.get("org.criu.config") {
        Some(file) if !file.is_empty() => Some(file.clone()),
        // Asked for by name: none.
        Some(_) => None,
        None => {
            let usual = ["/etc/criu/runtime.conf", "/etc/criu/runc.conf"];
            usual.iter().find(|file| Path::new(file).exists()).map(|file| file.to_string())
        }
    }
}

fn usage(message: String) -> Error {
    Error::of(Kind::Usage, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_servers_are_addresses_with_ports() {
        let server = page_server("[::1]:27").unwrap();
        assert_eq!((server.address.as_deref(), server.port), (Some("::1"), Some(27)));
        assert!(page_server("127.0.0.1:1").is_ok() && page_server("localhost:9").is_ok());
        for bad in ["", "127.0.0.1", "127.0.0.1:", "127.0.0.1:0", "127.0.0.1:65536", "a b:1"] {
            assert!(page_server(bad).unwrap_err().to_string().contains("--page-server"), "{bad}");
        }
    }

    #[test]
    fn words_are_checked() {
        assert_eq!(empty_ns(&["network".into()]).unwrap(), libc::CLONE_NEWNET as u32);
        assert!(empty_ns(&["pid".into()]).is_err());
        assert_eq!(cgroup_mode(Some("full")).unwrap(), Some(CgroupMode::Full));
        assert!(cgroup_mode(Some("half")).is_err());
    }

    #[test]
    fn an_empty_annotation_means_no_file() {
        let with = |value: &str| BTreeMap::from([("org.criu.config".into(), value.to_string())]);
        assert_eq!(config_file(&with("/x")).as_deref(), Some("/x"));
        assert_eq!(config_file(&with("")), None);
    }
}
