//! `imgtool login`, `logout`, `catalog` and `search` against our own registry.

mod client;
mod server;

use std::os::unix::fs::PermissionsExt;
use std::process::Output;

use client::{Scratch, command, imgtool, succeeds, with_input};
use serde_json::{Value, json};
use server::{Reply, Server};

/// Takes `me` and `s3:cret` by Basic, nobody else.
fn basic() -> Server {
    Server::start(|r| {
        let good = r.header("authorization") == Some("Basic bWU6czM6Y3JldA==");
        Some(match good {
            true => Reply::new(200),
            false => Reply::new(401).header("WWW-Authenticate", "Basic realm=\"x\""),
        })
    })
}

fn log_in(scratch: &Scratch, password: &str, args: &[&str]) -> Output {
    let all = [&["login", "-u", "me", "--password-stdin"], args].concat();
    with_input(command(scratch, &all), password)
}

fn read(scratch: &Scratch, path: &str) -> Value {
    serde_json::from_slice(&std::fs::read(scratch.0.join(path)).unwrap()).unwrap()
}

const DEFAULT: &str = "run/containers/auth.json";

#[test]
fn login_checks_and_keeps_logout_forgets() {
    let server = basic();
    let host = server.address.to_string();
    let scratch = Scratch::new();
    let output = log_in(&scratch, "wrong", &[&host]);
    assert_eq!(output.status.code(), Some(1));
    let e = String::from_utf8(output.stderr).unwrap();
    assert!(e.contains("access denied: 401") && !e.contains("wrong"), "{e}");
    assert!(!scratch.0.join(DEFAULT).exists(), "credentials that were refused were kept");

    let output = log_in(&scratch, "s3:cret\n", &[&host]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty() && !output.stdout.is_empty());
    assert_eq!(read(&scratch, DEFAULT), json!({"auths": {&host: {"auth": "bWU6czM6Y3JldA=="}}}));
    let mode = scratch.0.join(DEFAULT).metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(succeeds(&scratch, &["login", "--get-login", &host]), "me\n");

    succeeds(&scratch, &["logout", &host]);
    assert_eq!(read(&scratch, DEFAULT), json!({"auths": {}}));
    let output = imgtool(&scratch, &["logout", &host]);
    assert!(String::from_utf8(output.stderr).unwrap().contains("not logged in to"));
    assert_eq!(imgtool(&scratch, &["login", "--get-login", &host]).status.code(), Some(1));
}

#[test]
fn what_else_is_in_the_file_stays() {
    let server = basic();
    let host = server.address.to_string();
    let scratch = Scratch::new();
    let file = scratch.0.join("a.json");
    let before = json!({"HttpHeaders": {"x": "y"}, "auths": {"other.example": {"auth": "YTpi"}}});
    std::fs::write(&file, before.to_string()).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let path = file.to_str().unwrap();
    let part = format!("{host}/team/x");
    assert!(log_in(&scratch, "s3:cret", &["--authfile", path, &part]).status.success());
    let json = read(&scratch, "a.json");
    assert_eq!(json["HttpHeaders"], before["HttpHeaders"]);
    assert_eq!(json["auths"]["other.example"], before["auths"]["other.example"]);
    assert_eq!(json["auths"][&part]["auth"], "bWU6czM6Y3JldA==");
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(
        succeeds(&scratch, &["logout", "--all", "--authfile", path]),
        format!("logged out of other.example\nlogged out of {part}\n")
    );
    std::fs::write(&file, "not json").unwrap();
    assert_eq!(log_in(&scratch, "s3:cret", &["--authfile", path, &host]).status.code(), Some(1));
    assert_eq!(
        std::fs::read(&file).unwrap(),
        b"not json",
        "a file that we cannot read was replaced"
    );
}

#[test]
fn a_helper_keeps_and_forgets() {
    let server = basic();
    let host = server.address.to_string();
    let scratch = Scratch::new();
    let helper = scratch.0.join("docker-credential-test");
    let kept = scratch.0.join("kept");
    let script = format!(
        "#!/bin/sh\ncase $1 in\nstore) cat > {kept};;\nget) sed 's/.*/{{\"Username\":\"me\",\"Secret\":\"s3:cret\"}}/' {kept};;\nerase) cat > {kept}.gone; rm {kept};;\nesac\n",
        kept = kept.display()
    );
    std::fs::write(&helper, script).unwrap();
    std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755)).unwrap();
    let file = scratch.0.join("a.json");
    std::fs::write(&file, json!({"credHelpers": {&host: "test"}}).to_string()).unwrap();
    let run = |args: &[&str]| {
        let all = [args, &["--authfile", file.to_str().unwrap(), &host]].concat();
        let mut command = command(&scratch, &all);
        command.env("PATH", format!("{}:/usr/bin:/bin", scratch.0.display()));
        let output = with_input(command, "s3:cret");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let said = run(&["login", "-u", "me", "--password-stdin"]);
    assert!(said.contains("kept in docker-credential-test"), "{said}");
    let stored: Value = serde_json::from_slice(&std::fs::read(&kept).unwrap()).unwrap();
    assert_eq!(stored, json!({"ServerURL": host, "Username": "me", "Secret": "s3:cret"}));
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(!text.contains("bWU6"), "the password is in the file too: {text}");
    assert_eq!(run(&["login", "--get-login"]), "me\n");
    run(&["logout"]);
    assert_eq!(std::fs::read_to_string(scratch.0.join("kept.gone")).unwrap(), host);
}

#[test]
fn passwords_are_asked_for_where_they_can_be() {
    let scratch = Scratch::new();
    for args in [&["login", "r.example"][..], &["login", "-u", "me", "r.example"]] {
        let output = with_input(command(&scratch, args), "");
        assert_eq!(output.status.code(), Some(2), "{args:?}");
    }
}

#[test]
fn the_catalog_comes_in_pages_or_not_at_all() {
    let server = Server::start(|r| {
        let page =
            |names: &[&str]| Reply::new(200).body(json!({"repositories": names}).to_string());
        match &*r.target {
            "/v2/" => Some(Reply::new(200)),
            "/v2/_catalog?n=1000" => {
                Some(page(&["a", "team/b"]).header("Link", "<?last=b>; rel=\"next\""))
            }
            "/v2/_catalog?last=b" => Some(page(&["c"])),
            _ => Some(Reply::new(404)),
        }
    });
    let scratch = Scratch::new();
    let host = server.address.to_string();
    assert_eq!(succeeds(&scratch, &["catalog", &host]), "a\nteam/b\nc\n");
    let json: Value =
        serde_json::from_str(&succeeds(&scratch, &["catalog", "--json", &host])).unwrap();
    assert_eq!(json, json!({"Registry": host, "Repositories": ["a", "team/b", "c"]}));
    // Where there is no search, the catalog is looked through.
    assert_eq!(
        succeeds(&scratch, &["search", &format!("{host}/b")]).trim().split(' ').next(),
        Some(&*format!("{host}/team/b"))
    );

    let none = Server::start(|r| Some(Reply::new(if r.target == "/v2/" { 200 } else { 404 })));
    let output = imgtool(&scratch, &["catalog", &none.address.to_string()]);
    let e = String::from_utf8(output.stderr).unwrap();
    assert!(e.contains("does not list its repositories") && e.contains("404"), "{e}");
}

#[test]
fn search_shows_what_is_found() {
    let server = Server::start(|r| {
        match r.path() {
        "/v1/search" => Some(Reply::new(200).body(
            json!({"results": [
                {"name": "busybox", "description": "small\u{7}", "star_count": 9, "is_official": true},
                {"name": "x/y"}]})
            .to_string(),
        )),
        _ => Some(Reply::new(200)),
    }
    });
    let scratch = Scratch::new();
    let words = format!("{}/busy box", server.address);
    let said = succeeds(&scratch, &["search", "--limit", "7", &words]);
    assert_eq!(said.lines().count(), 2);
    assert!(said.starts_with(&format!("{}/busybox", server.address)), "{said}");
    assert!(said.contains("official") && !said.contains('\u{7}'));
    assert_eq!(server.requests("GET", "/v1/search")[0].target, "/v1/search?q=busy%20box&n=7");
    let json: Value =
        serde_json::from_str(&succeeds(&scratch, &["search", "--json", &words])).unwrap();
    assert_eq!(json[0]["stars"], 9);
}
