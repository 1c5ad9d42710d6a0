//! config.json, rule by rule.

use clap::Parser;
use serde_json::{Value, json};

use super::devices::Devices;
use super::host::{Host, Rootless};
use super::settings::Settings;
use super::spec::{self, Inputs};
use super::user::User;
use crate::Result;
use crate::image::ImageConfig;

#[derive(Parser)]
#[command(disable_help_flag = true)]
struct Line {
    #[command(flatten)]
    settings: Settings,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

const IMAGE: &str = r#"{"os":"linux","architecture":"arm64","variant":"v8","author":"ann",
    "created":"2026-01-01T00:00:00Z","config":{"Entrypoint":["/init"],"Cmd":["serve"],
    "Env":["A=1","PATH=/opt"],"WorkingDir":"/srv","StopSignal":"SIGINT",
    "ExposedPorts":{"80/tcp":{},"53/udp":{}},"Labels":{"x":"y",
    "org.opencontainers.image.author":"bob"}},"rootfs":{"type":"layers","diff_ids":[]}}"#;

fn host() -> Host {
    Host {
        kernel: (6, 1),
        arch: "x86_64",
        caps: (1 << 41) - 1,
        cgroup2: true,
        rootless: None,
        net_sysctls: vec![("net.ipv4.ip_unprivileged_port_start", "0")],
    }
}

fn make_on(host: &Host, image: &str, user: &User, line: &[&str]) -> Result<Value> {
    let line = Line::try_parse_from([&["test"], line].concat()).unwrap();
    spec::make(Inputs {
        image: &ImageConfig::parse(image.as_bytes())?,
        settings: &line.settings,
        command: &line.command,
        host,
        user,
        env: &line.settings.env,
        mounts: Vec::new(),
        devices: &Devices::resolve(&line.settings)?,
        seccomp_file: None,
        hostname: "box",
    })
}

fn make(line: &[&str]) -> Value {
    let user = User { home: "/root".into(), ..User::default() };
    make_on(&host(), IMAGE, &user, line).unwrap()
}

fn namespaces(config: &Value) -> Vec<&str> {
    let list = config["linux"]["namespaces"].as_array().unwrap();
    list.iter().map(|n| n["type"].as_str().unwrap()).collect()
}

#[test]
fn the_image_says_what_runs() {
    let process = &make(&[])["process"];
    assert_eq!(process["args"], json!(["/init", "serve"]));
    assert_eq!(process["cwd"], "/srv");
    assert_eq!(process["env"], json!(["PATH=/opt", "HOSTNAME=box", "A=1", "HOME=/root"]));
    assert_eq!(make(&["a", "-b"])["process"]["args"], json!(["/init", "a", "-b"]));
    assert_eq!(make(&["--entrypoint", "/e"])["process"]["args"], json!(["/e"]));
    assert_eq!(make(&["--entrypoint", "/e", "a"])["process"]["args"], json!(["/e", "a"]));
    assert_eq!(make(&["--entrypoint", "", "a"])["process"]["args"], json!(["a"]));
}

#[test]
fn a_later_variable_takes_the_place_of_an_earlier() {
    let env = &make(&["-t", "-e", "A=2", "-e", "HOME=/h", "-e", "B=3"])["process"]["env"];
    let expected = ["PATH=/opt", "HOSTNAME=box", "TERM=xterm", "A=2", "HOME=/h", "B=3"];
    assert_eq!(*env, json!(expected));
}

#[test]
fn malformed_images_are_errors() {
    let user = User::default();
    for bad in [
        r#"{"config":{"Env":["NOVALUE"],"Cmd":["x"]}}"#,
        r#"{"config":{}}"#,
        r#"{"config":{"Cmd":[""]}}"#,
    ] {
        assert!(make_on(&host(), bad, &user, &[]).is_err(), "{bad}");
    }
}

#[test]
fn annotations_are_derived_and_labels_override() {
    let all = &make(&["--annotation", "a=b", "-l", "x=z"])["annotations"];
    let derived = |key: &str| all[format!("org.opencontainers.image.{key}")].clone();
    assert_eq!(derived("architecture"), "arm64");
    assert_eq!(derived("variant"), "v8");
    assert_eq!(derived("stopSignal"), "SIGINT");
    assert_eq!(derived("exposedPorts"), "80/tcp,53/udp");
    assert_eq!(derived("author"), "bob");
    assert_eq!((&all["a"], &all["x"]), (&json!("b"), &json!("z")));
}

#[test]
fn only_root_has_capabilities_in_effect() {
    let caps = &make(&[])["process"]["capabilities"];
    assert_eq!(caps["effective"].as_array().unwrap().len(), 14);
    let user = User { uid: 1000, home: "/".into(), ..User::default() };
    let config = make_on(&host(), IMAGE, &user, &[]).unwrap();
    let caps = &config["process"]["capabilities"];
    assert!(caps.get("effective").is_none() && caps.get("inheritable").is_none());
    assert_eq!(caps["bounding"].as_array().unwrap().len(), 14);
}

#[test]
fn namespaces_follow_their_modes() {
    assert_eq!(namespaces(&make(&[])), ["mount", "network", "uts", "pid", "ipc", "cgroup"]);
    let shared = [
        "--network",
        "host",
        "--pid",
        "host",
        "--ipc",
        "host",
        "--uts",
        "host",
        "--cgroupns",
        "host",
    ];
    let config = make(&shared);
    assert_eq!(namespaces(&config), ["mount"]);
    assert!(config.get("hostname").is_none() && config["linux"].get("sysctl").is_none());
    let v1 = Host { cgroup2: false, ..host() };
    let config = make_on(&v1, IMAGE, &User::default(), &[]).unwrap();
    assert!(!namespaces(&config).contains(&"cgroup"));
}

#[test]
fn limits_are_dockerds() {
    let resources = &make(&["-m", "64m", "--cpus", "1.5", "--pids-limit", "9", "-c", "7"])["linux"]
        ["resources"];
    assert_eq!(resources["memory"], json!({"limit": 64 << 20, "swap": 128 << 20}));
    assert_eq!(resources["cpu"], json!({"quota": 150_000, "period": 100_000, "shares": 7}));
    assert_eq!(resources["pids"], json!({"limit": 9}));
    assert_eq!(resources["devices"][0], json!({"allow": false, "access": "rwm"}));
    let memory = &make(&["-m", "64m", "--memory-swap", "-1"])["linux"]["resources"]["memory"];
    assert_eq!(memory["swap"], -1);
    for bad in [&["-m", "1m"][..], &["--memory-swap", "1g"], &["-m", "1g", "--memory-swap", "1m"]] {
        assert!(make_on(&host(), IMAGE, &User::default(), bad).is_err());
    }
}

#[test]
fn privileged_opens_everything() {
    let config = make(&["--privileged"]);
    let linux = &config["linux"];
    assert!(linux.get("seccomp").is_none() && linux.get("maskedPaths").is_none());
    assert_eq!(linux["resources"]["devices"], json!([{"allow": true, "access": "rwm"}]));
    assert_eq!(config["process"]["capabilities"]["bounding"].as_array().unwrap().len(), 41);
    let closed = config["mounts"].as_array().unwrap().iter();
    assert!(!closed.flat_map(|m| m["options"].as_array().unwrap()).any(|o| o == "ro"));
    let linux = &make(&["--security-opt", "seccomp=unconfined"])["linux"];
    assert!(linux.get("seccomp").is_none() && linux.get("maskedPaths").is_some());
}

#[test]
fn users_without_privilege_get_a_user_namespace() {
    let rootless = Rootless { uid: 1000, gid: 100, subuids: vec![(5000, 10)], subgids: Vec::new() };
    let host = Host { rootless: Some(rootless.clone()), ..host() };
    let config = make_on(&host, IMAGE, &User::default(), &[]).unwrap();
    assert!(namespaces(&config).contains(&"user"));
    let maps = &config["linux"]["uidMappings"];
    assert_eq!(maps[1], json!({"containerID": 1, "hostID": 5000, "size": 10}));
    let mounts = config["mounts"].as_array().unwrap();
    let devpts = mounts.iter().find(|m| m["type"] == "devpts").unwrap();
    assert!(!devpts["options"].as_array().unwrap().contains(&json!("gid=5")));
    assert!(!mounts.iter().any(|m| m["type"] == "cgroup"));
    let user = |uid| User { uid, ..User::default() };
    assert!(spec::is_mapped(&rootless, &user(10)) && !spec::is_mapped(&rootless, &user(11)));
}
