//! `checkpoint` and `restore`: from words to what is wanted.

use crate::checkpoint;
use crate::cli::criu as cli;
use crate::container::ContainerId;
use crate::criu::options::{Common, cgroup_mode, empty_ns, page_server};
use crate::error::Result;
use crate::plan::Options;
use crate::restore;
use std::path::Path;

fn common(args: cli::Common) -> Result<Common> {
    Ok(Common {
        manage_cgroups: cgroup_mode(args.manage_cgroups_mode.as_deref())?,
        empty_ns: empty_ns(&args.empty_ns)?,
        image_path: args.image_path.filter(|path| !path.as_os_str().is_empty()),
        work_path: args.work_path.filter(|path| !path.as_os_str().is_empty()),
        tcp_established: args.tcp_established,
        ext_unix_sk: args.ext_unix_sk,
        shell_job: args.shell_job,
        file_locks: args.file_locks,
        auto_dedup: args.auto_dedup,
        lazy_pages: args.lazy_pages,
    })
}

/// `checkpoint`: the container, and how it is to be saved.
pub fn checkpoint(args: cli::Checkpoint) -> Result<(ContainerId, checkpoint::Wanted)> {
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let wanted = checkpoint::Wanted {
        common: common(args.common)?,
        parent_path: args.parent_path.filter(|path| !path.as_os_str().is_empty()),
        leave_running: args.leave_running,
        tcp_skip_in_flight: args.tcp_skip_in_flight,
        // -1 is runc's word for none.
        status_fd: args.status_fd.filter(|fd| *fd != -1),
        page_server: given(&args.page_server).as_deref().map(page_server).transpose()?,
        pre_dump: args.pre_dump,
        link_remap: args.link_remap,
    };
    Ok((ContainerId::new(&args.id)?, wanted))
}

/// `restore`.
pub fn restore(root: &Path, args: cli::Restore, options: Options) -> Result<restore::Wanted<'_>> {
    let given = |text: Option<String>| text.filter(|text| !text.is_empty());
    Ok(restore::Wanted {
        root,
        id: ContainerId::new(&args.id)?,
        bundle: args.bundle,
        common: common(args.common)?,
        pid_file: args.pid_file,
        console_socket: args.console_socket,
        detach: args.detach,
        no_subreaper: args.no_subreaper,
        tcp_close: args.tcp_close,
        lsm_profile: given(args.lsm_profile),
        lsm_mount_context: given(args.lsm_mount_context),
        options: Options { no_pivot: args.no_pivot, preserve_fds: args.preserve_fds, ..options },
    })
}
