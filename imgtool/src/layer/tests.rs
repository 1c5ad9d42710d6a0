//! Layers applied to real directories: attacks, dialects, whiteouts, and the way back.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use tar_core::{EntryBuilder, EntryType};

use super::*;
use crate::Result;
use crate::digest::Digest;

/// A directory of our own: `root` for the layer, and what lies beside it.
struct Area(PathBuf);

impl Area {
    fn new(name: &str) -> Area {
        let dir = format!("imgtool-layer-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(dir);
        drop(fs::remove_dir_all(&path));
        fs::create_dir_all(path.join("root")).unwrap();
        fs::write(path.join("outside"), "untouched").unwrap();
        Area(path)
    }

    fn root(&self) -> PathBuf {
        self.0.join("root")
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root().join(path)
    }

    fn apply(&self, archive: &[u8]) -> Result<Applied> {
        self.apply_with(archive, &Options::default())
    }

    /// As the user that runs the test: without root, files are ours.
    fn apply_with(&self, archive: &[u8], options: &Options) -> Result<Applied> {
        let ownership = match rustix::process::geteuid().is_root() {
            true => options.ownership,
            false => Ownership::Ours,
        };
        let root = File::open(self.root()).unwrap();
        apply(archive, root.as_fd(), &Options { ownership, ..options.clone() })
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn add(mut self, kind: EntryType, path: &str, link: &str, data: &[u8]) -> Tar {
        let mut entry = EntryBuilder::new_ustar();
        entry.path(path).entry_type(kind).link_name(link);
        entry.mode(if kind == EntryType::Directory { 0o755 } else { 0o644 }).unwrap();
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        entry.uid(uid.as_raw().into()).unwrap().gid(gid.as_raw().into()).unwrap();
        entry.size(data.len() as u64).unwrap().mtime(1_000_000_000).unwrap();
        self.0.extend(entry.finish_bytes());
        self.0.extend(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, path: &str, data: &str) -> Tar {
        self.add(EntryType::Regular, path, "", data.as_bytes())
    }

    fn dir(self, path: &str) -> Tar {
        self.add(EntryType::Directory, path, "", b"")
    }

    fn link(self, path: &str, target: &str) -> Tar {
        self.add(EntryType::Symlink, path, target, b"")
    }

    fn hard(self, path: &str, target: &str) -> Tar {
        self.add(EntryType::Link, path, target, b"")
    }

    /// A PAX header for what comes next.
    fn pax(self, records: &[u8]) -> Tar {
        self.add(EntryType::XHeader, "pax", "", records)
    }

    fn end(mut self) -> Vec<u8> {
        self.0.extend([0; 1024]);
        self.0
    }
}

fn record(key: &str, value: &str) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let length = (1..).find(|n| n == &(rest + n.to_string().len())).unwrap();
    format!("{length} {key}={value}\n").into_bytes()
}

#[test]
fn links_do_not_lead_out() {
    let area = Area::new("escape");
    for (number, tar) in [
        Tar::default().link("a", "../..").file("a/outside", "x"),
        Tar::default().link("a", "/").file("a/outside", "x"),
        Tar::default().link("a", area.0.to_str().unwrap()).file("a/outside", "x"),
        Tar::default().link("a", "/proc/self/root").file("a/outside", "x"),
        Tar::default().link("d", "..").link("e", "d/..").file("e/outside", "x"),
        // The name itself is a link: replaced, not followed.
        Tar::default().link("f", "../outside").file("f", "x"),
        Tar::default().link("g", "../outside").hard("h", "g").file("h", "x"),
        Tar::default().link("i", "../outside").dir("i"),
        Tar::default().file("/outside", "x").file("//outside", "y"),
        Tar::default().file("../outside", "x"),
        Tar::default().file("k/../../outside", "x"),
        Tar::default().hard("l", "../outside").file("l", "x"),
        Tar::default().hard("m", area.0.join("outside").to_str().unwrap()).file("m", "x"),
        Tar::default().link("n", "..").hard("o", "n/outside").file("o", "x"),
        Tar::default().link("p", "..").file("p/.wh.outside", ""),
        Tar::default().link("q", "..").file("q/.wh..wh..opq", ""),
    ]
    .into_iter()
    .enumerate()
    {
        // Some are errors, some land within the root; none touches what is outside.
        drop(area.apply(&tar.end()));
        let outside = area.0.join("outside");
        assert_eq!(fs::read_to_string(&outside).unwrap(), "untouched", "attack {number}");
        let beside = fs::read_dir(&area.0).unwrap().count();
        assert_eq!((beside, fs::metadata(&outside).unwrap().nlink()), (2, 1), "attack {number}");
        fs::remove_dir_all(area.root()).unwrap();
        fs::create_dir(area.root()).unwrap();
    }
}

#[test]
fn names_that_leave_the_root_are_errors() {
    let area = Area::new("dotdot");
    for tar in [
        Tar::default().file("../x", ""),
        Tar::default().file("a/../../x", ""),
        Tar::default().hard("x", "../outside"),
        Tar::default().link("l", "/etc/nowhere").file("l/x", ""),
    ] {
        assert!(area.apply(&tar.end()).is_err());
    }
}

#[test]
fn the_root_stays_a_directory() {
    let area = Area::new("retype");
    for tar in [
        Tar::default().link("./", "/etc"),
        Tar::default().link(".", "/etc"),
        Tar::default().file("/", "content"),
        Tar::default().file("a/..", ""),
        Tar::default().hard("a/..", "b"),
        Tar::default().add(EntryType::Fifo, ".", "", b""),
    ] {
        let e = area.apply(&tar.end()).unwrap_err().to_string();
        assert!(e.contains("root") || e.contains("content"), "{e}");
        assert!(fs::symlink_metadata(area.root()).unwrap().is_dir());
    }
}

#[test]
fn pax_sizes_are_believed_once() {
    let area = Area::new("pax");
    // The PAX size holds for the file, not for the header between.
    let data = vec![b'x'; 700];
    let mut tar = Tar::default().pax(&record("size", "700"));
    let mut entry = EntryBuilder::new_ustar();
    entry.path("f").entry_type(EntryType::Regular).mode(0o644).unwrap();
    tar.0.extend(entry.finish_bytes());
    tar.0.extend(&data);
    tar.0.resize(tar.0.len().next_multiple_of(512), 0);
    area.apply(&tar.file("g", "next").end()).unwrap();
    assert_eq!(fs::read(area.at("f")).unwrap(), data);
    assert_eq!(fs::read_to_string(area.at("g")).unwrap(), "next");
    for bad in
        [record("size", "-1"), record("size", "x"), record("uid", "99999999999"), b"5 a=".to_vec()]
    {
        assert!(area.apply(&Tar::default().pax(&bad).file("h", "").end()).is_err());
    }
    // A size beyond the archive, and one beyond any file.
    for size in ["100000", "9223372036854775808", "18446744073709551615"] {
        assert!(
            area.apply(&Tar::default().pax(&record("size", size)).file("i", "x").end()).is_err()
        );
    }
    let twice = Tar::default().pax(&record("path", "a")).pax(&record("path", "b")).file("c", "");
    assert!(area.apply(&twice.end()).is_err());
}

#[test]
fn bombs_are_defused() {
    let area = Area::new("bomb");
    let limits = Limits { max_bytes: 1 << 20, max_entries: 3, ratio_from: 1 << 16, max_ratio: 50 };
    let options = Options { limits, ..Options::default() };
    let many = (0..9).fold(Tar::default(), |tar, n| tar.file(&format!("f{n}"), "")).end();
    assert!(area.apply_with(&many, &options).unwrap_err().to_string().contains("members"));
    let zeros = "\0".repeat(200_000);
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gz.write_all(&Tar::default().file("zeros", &zeros).end()).unwrap();
    let e = area.apply_with(&gz.finish().unwrap(), &options).unwrap_err().to_string();
    assert!(e.contains("bomb"), "{e}");
    let large = Tar::default().file("large", &"\0".repeat(2 << 20)).end();
    assert!(area.apply_with(&large, &options).unwrap_err().to_string().contains("larger"));
    // A sparse file may claim a size, not a map that leaves it.
    let map = [record("GNU.sparse.size", "10"), record("GNU.sparse.map", "5,6")].concat();
    assert!(area.apply(&Tar::default().pax(&map).file("s", "sixsix").end()).is_err());
}

#[test]
fn cut_and_false_archives_are_errors() {
    let area = Area::new("cut");
    let whole = Tar::default().file("a", &"x".repeat(2000)).end();
    for length in [100, 511, 513, 1500, 2400] {
        assert!(area.apply(&whole[..length]).is_err(), "{length}");
    }
    let mut flipped = whole.clone();
    flipped[0] ^= 1;
    assert!(area.apply(&flipped).unwrap_err().to_string().contains("checksum"));
    let diff_id = Some(Digest::sha256(b"something else"));
    let options = Options { diff_id, ..Options::default() };
    assert!(area.apply_with(&whole, &options).unwrap_err().to_string().contains("digest"));
    let options = Options { diff_id: Some(Digest::sha256(&whole)), ..Options::default() };
    assert_eq!(area.apply_with(&whole, &options).unwrap().size, whole.len() as u64);
    let trailing = [&whole[..], &[0; 512], b"junk"].concat();
    assert!(area.apply(&trailing).unwrap().trailing && !area.apply(&whole).unwrap().trailing);
}

#[test]
fn every_compression_is_recognised() {
    let plain = Tar::default().file("a", "data").end();
    let half = plain.len() / 2;
    let gzip = |part: &[u8]| {
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(part).unwrap();
        gz.finish().unwrap()
    };
    let zstd = |part: &[u8]| zstd::encode_all(part, 3).unwrap();
    for archive in [
        gzip(&plain),
        [gzip(&plain[..half]), gzip(&plain[half..])].concat(),
        zstd(&plain),
        [zstd(&plain[..half]), zstd(&plain[half..])].concat(),
        plain.clone(),
    ] {
        let area = Area::new("compressed");
        assert_eq!(area.apply(&archive).unwrap().diff_id, Digest::sha256(&plain));
        assert_eq!(fs::read(area.at("a")).unwrap(), b"data");
    }
    let area = Area::new("truncated");
    let gz = gzip(&plain);
    assert!(area.apply(&gz[..gz.len() - 4]).is_err());
    assert!(area.apply(b"BZh91AY&SY").unwrap_err().to_string().contains("bzip2"));
}

#[test]
fn whiteouts_hide_lower_layers_only_in_any_order() {
    let lower =
        Tar::default().dir("d").file("d/old", "1").file("d/both", "1").dir("e").file("e/x", "1");
    let lower = lower.file("gone", "1").dir("tree").file("tree/deep", "1").end();
    let parts: [fn(Tar) -> Tar; 5] = [
        |t| t.file("d/new", "2").file("d/both", "2"),
        |t| t.file("d/.wh..wh..opq", ""),
        |t| t.file(".wh.gone", "").file(".wh.never", ""),
        |t| t.file(".wh.e", ""),
        |t| t.dir("e").file("e/y", "2"),
    ];
    for turn in 0..parts.len() {
        let area = Area::new("order");
        area.apply(&lower).unwrap();
        let tar = (0..parts.len()).fold(Tar::default(), |t, n| parts[(n + turn) % parts.len()](t));
        area.apply(&tar.end()).unwrap();
        let there = |path: &str| area.at(path).exists();
        assert!(!there("d/old") && !there("gone") && !there("e/x"), "turn {turn}");
        assert!(there("d/new") && there("e/y") && there("tree/deep"), "turn {turn}");
        assert_eq!(fs::read(area.at("d/both")).unwrap(), b"2", "turn {turn}");
    }
    let area = Area::new("bare");
    for bad in [".wh.", "d/.wh..", "d/.wh...", ".wh.a/b"] {
        assert!(area.apply(&Tar::default().file(bad, "").end()).is_err(), "{bad}");
    }
}

#[test]
fn overlay_spells_whiteouts_its_own_way() {
    if !rustix::process::geteuid().is_root() {
        return; // 0:0 devices and trusted attributes need root.
    }
    let area = Area::new("overlay");
    let tar = Tar::default().dir("d").file("d/.wh..wh..opq", "").file(".wh.gone", "");
    let tar =
        tar.file(".wh.e", "").dir("e").dir("f").file(".wh.f", "").file(".wh.h", "").file("h", "");
    let whiteouts = Whiteouts::Overlay(XattrSpace::Trusted);
    let options = Options { whiteouts, ..Options::default() };
    area.apply_with(&tar.end(), &options).unwrap();
    let gone = fs::symlink_metadata(area.at("gone")).unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    for (name, opaque) in [("d", true), ("e", true), ("f", true)] {
        let mut value = [0; 4];
        let found = rustix::fs::getxattr(area.at(name), "trusted.overlay.opaque", &mut value[..]);
        assert_eq!(found.is_ok(), opaque, "{name}");
    }
    assert!(fs::symlink_metadata(area.at("h")).unwrap().is_file());
    // An archive cannot smuggle overlay's attributes in, nor a device that is a whiteout.
    let smuggled = Tar::default().pax(&record("SCHILY.xattr.trusted.overlay.opaque", "y")).dir("s");
    area.apply_with(&smuggled.end(), &options).unwrap();
    let mut value = [0; 4];
    assert!(rustix::fs::getxattr(area.at("s"), "trusted.overlay.opaque", &mut value[..]).is_err());
    let device = Tar::default().add(EntryType::Char, "dev", "", b"");
    assert!(area.apply_with(&device.end(), &options).is_err());
}

#[test]
fn layers_tell_what_they_lean_on() {
    let area = Area::new("leans");
    let options = Options { alone: true, ..Options::default() };
    let leans = |tar: Tar| area.apply_with(&tar.end(), &options).unwrap().leans.is_some();
    assert!(leans(Tar::default().file("usr/bin/x", "")));
    assert!(leans(Tar::default().hard("a", "below")));
    assert!(!leans(Tar::default().file("late/x", "").dir("late")));
    assert!(!leans(Tar::default().dir("p").file("p/x", "").hard("y", "p/x")));
}

#[test]
fn attributes_and_directory_times_are_set_last() {
    let area = Area::new("attributes");
    let tar = Tar::default()
        .dir("d")
        .pax(&[record("mtime", "-1.25"), record("SCHILY.xattr.user.x", "v")].concat())
        .file("d/f", "data")
        .dir("ro")
        .file("ro/f", "");
    area.apply(&tar.end()).unwrap();
    let dir = fs::metadata(area.at("d")).unwrap();
    assert_eq!((dir.mtime(), dir.mode() & 0o7777), (1_000_000_000, 0o755));
    let file = fs::metadata(area.at("d/f")).unwrap();
    assert_eq!((file.mtime(), file.mtime_nsec()), (-2, 750_000_000));
    // A layer that only adds to a directory leaves its time as it was.
    area.apply(&Tar::default().file("d/g", "").end()).unwrap();
    assert_eq!(fs::metadata(area.at("d")).unwrap().mtime(), 1_000_000_000);
}

/// All that tar and find can tell about a tree.
fn describe(root: &Path) -> String {
    let find = Command::new("find")
        .args([".", "-printf", "%P %y %m %U:%G %s %T@ %l %n\n"])
        .current_dir(root)
        .output()
        .unwrap();
    let text = String::from_utf8(find.stdout).unwrap();
    // Directories' sizes are the file system's affair.
    let mut lines: Vec<String> = text
        .lines()
        .map(|line| match line.split(' ').collect::<Vec<_>>()[..] {
            [path, "d", mode, owner, _, time, ..] => format!("{path} d {mode} {owner} {time}"),
            _ => line.to_owned(),
        })
        .collect();
    lines.sort();
    lines.join("\n")
}

fn sample(root: &Path) {
    let long = root.join("l".repeat(120)).join("m".repeat(120));
    fs::create_dir_all(&long).unwrap();
    fs::write(long.join("n".repeat(200)), "long").unwrap();
    fs::write(root.join("file"), "content").unwrap();
    fs::hard_link(root.join("file"), root.join("zlink")).unwrap();
    symlink("t".repeat(150), root.join("symlink")).unwrap();
    symlink("file", root.join("short")).unwrap();
    fs::write(root.join("setuid"), "").unwrap();
    fs::set_permissions(root.join("setuid"), fs::Permissions::from_mode(0o4711)).unwrap();
    fs::write(root.join("umlaut-\u{fc}\n"), "").unwrap();
    let sparse = File::create(root.join("sparse")).unwrap();
    sparse.set_len(3 << 20).unwrap();
    rustix::io::pwrite(&sparse, b"middle", 1 << 20).unwrap();
    let mut many = File::create(root.join("many-holes")).unwrap();
    many.set_len(4 << 20).unwrap();
    for n in 0..60u64 {
        rustix::io::pwrite(&many, b"x", n * 65536).unwrap();
    }
    many.flush().unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        root.join("fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o640),
        0,
    )
    .unwrap();
}

#[test]
fn gnu_tar_and_we_agree_in_every_dialect() {
    let source = Area::new("gnu-source");
    sample(&source.root());
    for format in [
        "--format=gnu",
        "--format=pax",
        "--format=posix --sparse",
        "--format=gnu --sparse",
        "--format=posix --sparse --sparse-version=0.0",
        "--format=posix --sparse --sparse-version=0.1",
    ] {
        let tar = Command::new("tar")
            .args(format.split(' '))
            .args(["-C", source.root().to_str().unwrap(), "-cf", "-", "."])
            .output()
            .unwrap();
        assert!(tar.status.success(), "{}", String::from_utf8_lossy(&tar.stderr));
        let area = Area::new("gnu-target");
        area.apply(&tar.stdout).unwrap();
        let (a, b) = (describe(&source.root()), describe(&area.root()));
        // GNU's own format has whole seconds.
        let whole = |text: String| {
            text.split(' ').map(|w| w.split('.').next().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(whole(a), whole(b), "{format}");
        for file in ["sparse", "many-holes", "file"] {
            assert_eq!(
                fs::read(area.at(file)).unwrap(),
                fs::read(source.at(file)).unwrap(),
                "{format} {file}"
            );
        }
    }
}

#[test]
fn what_is_written_is_what_is_read() {
    let source = Area::new("own-source");
    sample(&source.root());
    let lower: [PathBuf; 0] = [];
    let options = DiffOptions { root: None, ..DiffOptions::default() };
    let first = from_upper(&source.root(), &lower, Vec::new(), &options).unwrap();
    let second = from_upper(&source.root(), &lower, Vec::new(), &options).unwrap();
    assert_eq!(Digest::sha256(&first), Digest::sha256(&second));
    let area = Area::new("own-target");
    area.apply(&first).unwrap();
    let strip = |root: &Path| describe(root).lines().skip(1).collect::<Vec<_>>().join("\n");
    assert_eq!(strip(&source.root()), strip(&area.root()));
    // GNU tar reads it too, and finds nothing different.
    let archive = source.0.join("archive.tar");
    fs::write(&archive, &first).unwrap();
    let compare = Command::new("tar")
        .args(["-df", archive.to_str().unwrap(), "-C", source.root().to_str().unwrap()])
        .output()
        .unwrap();
    assert!(compare.status.success(), "{}", String::from_utf8_lossy(&compare.stdout));
    let clamped = DiffOptions { max_mtime: Some(5), ..options };
    let clamped = from_upper(&source.root(), &lower, Vec::new(), &clamped).unwrap();
    area.apply(&clamped).unwrap();
    assert_eq!(fs::metadata(area.at("file")).unwrap().mtime(), 5);
}

#[test]
fn changes_of_a_copy_are_found_without_reading_it() {
    let area = Area::new("index");
    let tar = Tar::default().dir("d").file("d/a", "1").file("d/b", "1").dir("e").file("e/f", "1");
    area.apply(&tar.file("keep", "1").link("l", "keep").end()).unwrap();
    let index = area.0.join("index");
    write_index(&area.root(), &index).unwrap();
    let options = DiffOptions { stubs: vec![b"mnt".to_vec()], ..DiffOptions::default() };
    let empty = from_index(&area.root(), &index, Vec::new(), &options).unwrap();
    assert_eq!(empty, [0; 1024]);
    fs::remove_file(area.at("d/a")).unwrap();
    fs::write(area.at("d/c"), "2").unwrap();
    fs::remove_dir_all(area.at("e")).unwrap();
    fs::write(area.at("e"), "a file now").unwrap();
    fs::create_dir(area.at("mnt")).unwrap();
    let layer = from_index(&area.root(), &index, Vec::new(), &options).unwrap();
    let listed = Command::new("sh").args(["-c", "tar tf -"]).stdin(pipe(&layer)).output().unwrap();
    assert_eq!(String::from_utf8(listed.stdout).unwrap(), "d/\nd/.wh.a\nd/c\ne\n");
}

fn pipe(bytes: &[u8]) -> std::process::Stdio {
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(bytes).unwrap();
    reader.into()
}

/// What a tree on disk is like: path, type, mode, owner, time, link target or content.
fn on_disk(root: &Path) -> Vec<String> {
    let mut all = Vec::new();
    let mut todo = vec![PathBuf::new()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(root.join(&dir)).unwrap() {
            let path = dir.join(entry.unwrap().file_name());
            let meta = fs::symlink_metadata(root.join(&path)).unwrap();
            let what = match meta.file_type() {
                t if t.is_dir() => "dir".to_owned(),
                t if t.is_symlink() => format!("{:?}", fs::read_link(root.join(&path)).unwrap()),
                _ => format!("{:?}", fs::read(root.join(&path)).unwrap()),
            };
            let links = if meta.is_dir() { 1 } else { meta.nlink() };
            all.push(format!("{path:?} {:o} {links} {} {what}", meta.mode(), meta.mtime()));
            if meta.is_dir() {
                todo.push(path);
            }
        }
    }
    all.sort();
    all
}

/// A small deterministic generator (xorshift).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % sides as u64) as usize
    }

    fn path(&mut self) -> String {
        let depth = 1 + self.roll(3);
        let parts: Vec<&str> = (0..depth).map(|_| ["a", "b", "c"][self.roll(3)]).collect();
        parts.join("/")
    }

    /// A layer of a few members over few names, so that they meet.
    fn layer(&mut self) -> Vec<u8> {
        let mut tar = Tar::default();
        for _ in 0..1 + self.roll(8) {
            let path = self.path();
            let (dir, name) = path.rsplit_once('/').unwrap_or(("", &path));
            tar = match self.roll(8) {
                0 | 1 => tar.dir(&path),
                2 | 3 => {
                    let content = self.roll(1000).to_string();
                    tar.file(&path, &content)
                }
                4 => tar.link(&path, ["a", "../b", "/c", "./a/b", "..", "/"][self.roll(6)]),
                5 => {
                    let target = self.path();
                    tar.hard(&path, &target)
                }
                6 => tar.file(&format!("{dir}/.wh.{name}"), ""),
                _ => tar.file(&format!("{path}/.wh..wh..opq"), ""),
            };
        }
        tar.end()
    }
}

fn merge(tree: &mut Tree, layer: &[u8]) -> Result<()> {
    tree.add(layer, &Digest::sha256(layer), std::io::sink())
}

/// The layers as files, beside the root.
fn files(area: &Area, layers: &[Vec<u8>]) -> Vec<File> {
    let path = area.0.join("layer");
    let file = |layer: &Vec<u8>| {
        drop(fs::remove_file(&path));
        fs::write(&path, layer).unwrap();
        File::open(&path).unwrap()
    };
    layers.iter().map(file).collect()
}

/// Layers applied to a directory, and merged in memory and written as one, are the same tree; or
/// both refuse.
#[test]
fn merging_in_memory_is_applying() {
    let (mut agreed, mut refused) = (0, 0);
    for seed in 1..=150u64 {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let layers: Vec<Vec<u8>> = (0..1 + dice.roll(3)).map(|_| dice.layer()).collect();
        let applied = Area::new("merge-a");
        let on_disk_ok = layers.iter().try_for_each(|l| applied.apply(l).map(drop));
        let mut tree = Tree::new(true);
        let merged_ok = layers.iter().try_for_each(|l| merge(&mut tree, l));
        match (on_disk_ok, merged_ok) {
            (Ok(()), Ok(())) => {
                let flat = tree.write(Vec::new(), None, &files(&applied, &layers)).unwrap();
                let again = Area::new("merge-b");
                again.apply(&flat).unwrap();
                assert_eq!(on_disk(&again.root()), on_disk(&applied.root()), "seed {seed}");
                let mut flattened = Tree::new(true);
                merge(&mut flattened, &flat).unwrap();
                assert_eq!(tree.changes(&flattened), [], "seed {seed}");
                agreed += 1;
            }
            (Err(_), Err(_)) => refused += 1,
            (a, b) => panic!("seed {seed}: {a:?}, but merged {b:?}"),
        }
    }
    assert!(agreed > 20 && refused > 20, "{agreed} agreed, {refused} refused");
}

#[test]
fn holes_are_expanded_when_merged() {
    let map = b"2\n4096\n5\n8192\n0\n";
    let mut data = map.to_vec();
    data.resize(512, 0);
    data.extend(b"hello");
    let records = [
        record("GNU.sparse.major", "1"),
        record("GNU.sparse.minor", "0"),
        record("GNU.sparse.name", "s"),
        record("GNU.sparse.realsize", "8192"),
    ];
    let layer = Tar::default()
        .pax(&records.concat())
        .add(EntryType::Regular, "GNUSparseFile.0/s", "", &data)
        .end();
    let mut tree = Tree::new(false);
    merge(&mut tree, &layer).unwrap();
    let area = Area::new("merge-holes");
    let flat = tree.write(Vec::new(), None, &files(&area, &[layer])).unwrap();
    area.apply(&flat).unwrap();
    let mut expected = vec![0; 4096];
    expected.extend(b"hello");
    expected.resize(8192, 0);
    assert_eq!(fs::read(area.at("s")).unwrap(), expected);
}

#[test]
fn a_directory_made_by_the_way_leaves_its_parents_time() {
    let area = Area::new("implied-time");
    area.apply(&Tar::default().dir("a").end()).unwrap();
    area.apply(&Tar::default().file("a/b/c/d", "x").end()).unwrap();
    assert_eq!(fs::metadata(area.at("a")).unwrap().mtime(), 1_000_000_000);
}

#[test]
fn a_directory_reached_by_a_link_that_is_gone_gets_its_mode() {
    let area = Area::new("link-gone");
    let layer = Tar::default().dir("d").link("l", "d").file("l/sub/f", "x").file("l", "y");
    area.apply(&layer.end()).unwrap();
    assert_eq!(fs::metadata(area.at("d/sub")).unwrap().mode() & 0o777, 0o755);
}

#[test]
fn zeros_become_holes_and_come_back() {
    let area = Area::new("holes");
    let mut data = vec![7; 100_000];
    data.resize(3 << 20, 0);
    data.extend([8; 5]);
    data.resize(5 << 20, 0);
    let layer = Tar::default()
        .add(EntryType::Regular, "f", "", &data)
        .add(EntryType::Regular, "zeros", "", &vec![0; 1 << 20])
        .add(EntryType::Regular, "small", "", &[0; 1000]);
    area.apply(&layer.end()).unwrap();
    assert!(fs::read(area.at("f")).unwrap() == data);
    assert!(fs::read(area.at("zeros")).unwrap() == vec![0; 1 << 20]);
    let blocks = |name: &str| fs::metadata(area.at(name)).unwrap().blocks() * 512;
    assert!(
        blocks("f") < 400_000 && blocks("zeros") < 20_000,
        "{} {}",
        blocks("f"),
        blocks("zeros")
    );
    assert!(blocks("small") > 0);
    let file = File::open(area.at("f")).unwrap();
    let hole = rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(0)).unwrap();
    assert!((100_000..200_000).contains(&hole), "{hole}");
    let data = rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(hole)).unwrap();
    assert!(((3 << 20) - (64 << 10)..=3 << 20).contains(&data), "{data}");
}

#[test]
fn the_holes_of_a_sparse_member_are_holes() {
    let area = Area::new("sparse");
    let records = [
        record("GNU.sparse.size", "10485760"),
        record("GNU.sparse.numblocks", "1"),
        record("GNU.sparse.map", "5242880,5"),
    ];
    let layer = Tar::default().pax(&records.concat()).add(EntryType::Regular, "s", "", b"hello");
    area.apply(&layer.end()).unwrap();
    let meta = fs::metadata(area.at("s")).unwrap();
    assert_eq!(meta.len(), 10 << 20);
    assert!(meta.blocks() * 512 < 200_000);
    let file = File::open(area.at("s")).unwrap();
    assert_eq!(rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(0)).unwrap(), 0);
    assert!(fs::read(area.at("s")).unwrap()[5 << 20..].starts_with(b"hello"));
}

/// Owners that could not be given are told by an attribute, and stand in the layer made of the tree.
#[test]
fn owners_survive_a_tree_without_privilege() {
    let area = Area::new("rootless");
    let mut tar = Vec::new();
    for (path, kind, uid, gid) in [
        ("dir", EntryType::Directory, 1000, 5),
        ("dir/theirs", EntryType::Regular, 1000, 70_000),
        ("roots", EntryType::Regular, 0, 0),
    ] {
        let mut entry = EntryBuilder::new_ustar();
        entry.path(path).entry_type(kind).mode(0o444).unwrap();
        entry.uid(uid).unwrap().gid(gid).unwrap().size(0).unwrap().mtime(5).unwrap();
        tar.extend(entry.finish_bytes());
    }
    tar.extend([0; 1024]);
    let options = Options { ownership: Ownership::Ours, ..Options::default() };
    let root = File::open(area.root()).unwrap();
    let applied = apply(&tar[..], root.as_fd(), &options).unwrap();
    if applied.refused_xattrs > 0 {
        eprintln!("skipped: {} has no user attributes", area.root().display());
        return;
    }
    let mut value = [0; 20];
    let n = rustix::fs::getxattr(area.at("dir/theirs"), "user.rootlesscontainers", &mut value[..]);
    assert_eq!(&value[..n.unwrap()], b"\x08\xe8\x07\x10\xf0\xa2\x04");
    assert!(
        rustix::fs::getxattr(area.at("roots"), "user.rootlesscontainers", &mut value[..]).is_err()
    );
    let own = fs::metadata(area.at("dir/theirs")).unwrap().uid();
    assert_eq!(own, rustix::process::geteuid().as_raw());

    let options = DiffOptions { ownership: Ownership::Ours, ..DiffOptions::default() };
    let layer = from_upper(&area.root(), &[], Vec::new(), &options).unwrap();
    fs::write(area.0.join("layer.tar"), &layer).unwrap();
    let listed = Command::new("tar")
        .args(["--numeric-owner", "-tvf", area.0.join("layer.tar").to_str().unwrap()])
        .output()
        .unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let owners: Vec<&str> = listed.lines().map(|l| l.split(' ').nth(1).unwrap()).collect();
    assert_eq!(owners, ["1000/5", "1000/70000", "0/0"]);
    assert!(!layer.windows(14).any(|w| w == b"rootlesscontai"));
}
