//! What is said to CRIU and heard from it: the fields that are used of criu's images/rpc.proto,
//! in the names and with the numbers that it gives them (criu(8), swrk).

/// What a message is about (`criu_req_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum Type {
    /// Nothing.
    Empty = 0,
    /// Write the images of a process tree.
    Dump = 1,
    /// Make the processes anew.
    Restore = 2,
    /// Write the memory alone, and let the processes go on.
    PreDump = 4,
    /// Something has happened on the way; the other side waits for an answer.
    Notify = 6,
    /// Ask what criu and the kernel can do.
    FeatureCheck = 9,
}

/// What becomes of control groups (`criu_cg_mode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum CgroupMode {
    /// They are not looked at.
    Ignore = 0,
    /// Properties of the groups that criu makes are restored.
    Soft = 3,
    /// Properties of all groups are restored.
    Full = 4,
    /// As full, and no group may exist before.
    Strict = 5,
}

/// Where pages are sent to (`criu_page_server_info`).
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PageServer {
    /// An address.
    #[prost(string, optional, tag = "1")]
    pub address: Option<String>,
    /// A TCP port.
    #[prost(int32, optional, tag = "2")]
    pub port: Option<i32>,
}

/// A mount whose source is outside of the container (`ext_mount_map`).
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ExternalMount {
    /// Its name in the images.
    #[prost(string, required, tag = "1")]
    pub key: String,
    /// Its name when dumped, its source on the host when restored.
    #[prost(string, required, tag = "2")]
    pub val: String,
}

/// A namespace that exists and is joined (`join_namespace`).
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct JoinNamespace {
    /// Its kind.
    #[prost(string, required, tag = "1")]
    pub ns: String,
    /// Its file.
    #[prost(string, required, tag = "2")]
    pub ns_file: String,
}

/// A descriptor of ours that takes the place of one in the images (`inherit_fd`).
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct InheritFd {
    /// What it was.
    #[prost(string, required, tag = "1")]
    pub key: String,
    /// Our number.
    #[prost(int32, required, tag = "2")]
    pub fd: i32,
}

/// Where the groups of a controller are restored (`cgroup_root`).
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct CgroupRoot {
    /// The controller; all of them without.
    #[prost(string, optional, tag = "1")]
    pub ctrl: Option<String>,
    /// The path of the group.
    #[prost(string, required, tag = "2")]
    pub path: String,
}

/// How to do it (`criu_opts`).
#[derive(Clone, PartialEq, prost::Message)]
pub struct Options {
    /// Directory of the images.
    #[prost(int32, required, tag = "1")]
    pub images_dir_fd: i32,
    /// The first process of the tree.
    #[prost(int32, optional, tag = "2")]
    pub pid: Option<i32>,
    /// Let the processes go on.
    #[prost(bool, optional, tag = "3")]
    pub leave_running: Option<bool>,
    /// Allow unix sockets whose other end is outside.
    #[prost(bool, optional, tag = "4")]
    pub ext_unix_sk: Option<bool>,
    /// Allow established TCP connections.
    #[prost(bool, optional, tag = "5")]
    pub tcp_established: Option<bool>,
    /// Open devices by any path that leads to them.
    #[prost(bool, optional, tag = "6")]
    pub evasive_devices: Option<bool>,
    /// Allow a terminal and a session that are the caller's.
    #[prost(bool, optional, tag = "7")]
    pub shell_job: Option<bool>,
    /// Allow file locks.
    #[prost(bool, optional, tag = "8")]
    pub file_locks: Option<bool>,
    /// How much is logged.
    #[prost(int32, optional, tag = "9")]
    pub log_level: Option<i32>,
    /// Name of the log in the work directory.
    #[prost(string, optional, tag = "10")]
    pub log_file: Option<String>,
    /// Where pages are sent to.
    #[prost(message, optional, tag = "11")]
    pub ps: Option<PageServer>,
    /// Tell us what happens.
    #[prost(bool, optional, tag = "12")]
    pub notify_scripts: Option<bool>,
    /// The root directory of the restored processes.
    #[prost(string, optional, tag = "13")]
    pub root: Option<String>,
    /// The images before these, as seen from their directory.
    #[prost(string, optional, tag = "14")]
    pub parent_img: Option<String>,
    /// Keep track of the pages that change.
    #[prost(bool, optional, tag = "15")]
    pub track_mem: Option<bool>,
    /// Drop from earlier images what later ones have.
    #[prost(bool, optional, tag = "16")]
    pub auto_dedup: Option<bool>,
    /// Directory for logs.
    #[prost(int32, optional, tag = "17")]
    pub work_dir_fd: Option<i32>,
    /// Allow files without a name, by giving them one.
    #[prost(bool, optional, tag = "18")]
    pub link_remap: Option<bool>,
    /// Mounts from outside.
    #[prost(message, repeated, tag = "23")]
    pub ext_mnt: Vec<ExternalMount>,
    /// Look at control groups at all.
    #[prost(bool, optional, tag = "24")]
    pub manage_cgroups: Option<bool>,
    /// Where they are restored.
    #[prost(message, repeated, tag = "25")]
    pub cg_root: Vec<CgroupRoot>,
    /// The restored process becomes our child, not criu's.
    #[prost(bool, optional, tag = "26")]
    pub rst_sibling: Option<bool>,
    /// Descriptors handed over.
    #[prost(message, repeated, tag = "27")]
    pub inherit_fd: Vec<InheritFd>,
    /// What becomes of control groups.
    #[prost(enumeration = "CgroupMode", optional, tag = "34")]
    pub manage_cgroups_mode: Option<i32>,
    /// Resources from outside, such as a network namespace.
    #[prost(string, repeated, tag = "37")]
    pub external: Vec<String>,
    /// Namespaces whose content is left out, as CLONE_NEW* flags.
    #[prost(uint32, optional, tag = "38")]
    pub empty_ns: Option<u32>,
    /// Namespaces that are joined.
    #[prost(message, repeated, tag = "39")]
    pub join_ns: Vec<JoinNamespace>,
    /// The freezer group that holds the tree.
    #[prost(string, optional, tag = "44")]
    pub freeze_cgroup: Option<String>,
    /// Leave out connections that are not yet accepted.
    #[prost(bool, optional, tag = "46")]
    pub tcp_skip_in_flight: Option<bool>,
    /// Leave memory behind, to be fetched when it is touched.
    #[prost(bool, optional, tag = "48")]
    pub lazy_pages: Option<bool>,
    /// A descriptor that gets a byte when the server of lazy pages is ready.
    #[prost(int32, optional, tag = "49")]
    pub status_fd: Option<i32>,
    /// Make a new terminal where the old one's master was outside.
    #[prost(bool, optional, tag = "50")]
    pub orphan_pts_master: Option<bool>,
    /// A file with more options (criu(8), CONFIGURATION FILES).
    #[prost(string, optional, tag = "51")]
    pub config_file: Option<String>,
    /// Close connections instead of restoring them.
    #[prost(bool, optional, tag = "52")]
    pub tcp_close: Option<bool>,
    /// LSM label of the restored processes.
    #[prost(string, optional, tag = "53")]
    pub lsm_profile: Option<String>,
    /// LSM context of the restored mounts.
    #[prost(string, optional, tag = "63")]
    pub lsm_mount_context: Option<String>,
}

/// What criu and the kernel can do (`criu_features`).
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Features {
    /// Keep track of the pages that change.
    #[prost(bool, optional, tag = "1")]
    pub mem_track: Option<bool>,
    /// Fetch memory when it is touched.
    #[prost(bool, optional, tag = "2")]
    pub lazy_pages: Option<bool>,
}

/// To criu (`criu_req`).
#[derive(Clone, PartialEq, prost::Message)]
pub struct Request {
    /// What is wanted.
    #[prost(enumeration = "Type", required, tag = "1")]
    pub kind: i32,
    /// How.
    #[prost(message, optional, tag = "2")]
    pub opts: Option<Options>,
    /// The answer to a notification.
    #[prost(bool, optional, tag = "3")]
    pub notify_success: Option<bool>,
    /// The features that are asked about.
    #[prost(message, optional, tag = "5")]
    pub features: Option<Features>,
}

/// What has happened on the way (`criu_notify`).
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Notice {
    /// Its name.
    #[prost(string, optional, tag = "1")]
    pub script: Option<String>,
    /// The first process of the tree, on the host.
    #[prost(int32, optional, tag = "2")]
    pub pid: Option<i32>,
}

/// The process that was restored (`criu_restore_resp`).
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Restored {
    /// Its pid on the host.
    #[prost(int32, required, tag = "1")]
    pub pid: i32,
}

/// From criu (`criu_resp`).
#[derive(Clone, PartialEq, prost::Message)]
pub struct Response {
    /// To what it is the answer.
    #[prost(enumeration = "Type", required, tag = "1")]
    pub kind: i32,
    /// Was it done?
    #[prost(bool, required, tag = "2")]
    pub success: bool,
    /// The process that was restored.
    #[prost(message, optional, tag = "4")]
    pub restore: Option<Restored>,
    /// What has happened.
    #[prost(message, optional, tag = "5")]
    pub notify: Option<Notice>,
    /// The errno of what failed.
    #[prost(int32, optional, tag = "7")]
    pub cr_errno: Option<i32>,
    /// The features that there are.
    #[prost(message, optional, tag = "8")]
    pub features: Option<Features>,
    /// What failed, in words.
    #[prost(string, optional, tag = "9")]
    pub cr_errmsg: Option<String>,
}
