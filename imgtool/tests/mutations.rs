//! Mutated input for what reads hostile bytes: archives, manifests, configurations, references.
//!
//! Deterministic: `SEED=n` draws the mutations, `MUTATIONS=n` says how many for each reader. A
//! failure names its seed and number. Whatever the bytes, nothing panics, nothing leaves the root,
//! and the two readers of layers, onto a disk and in memory, come to the same answer.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use imgtool::digest::Digest;
use imgtool::image::{Document, ImageConfig};
use imgtool::layer::{Limits, Options, Ownership, Tree, apply, check_archive};
use imgtool::reference::Reference;

/// xorshift64*.
struct Dice(u64);

impl Dice {
    /// The generator of one mutation: any of them can be made again alone.
    fn new(seed: u64, number: u64) -> Dice {
        let mut dice = Dice((seed << 32 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        dice.roll(2);
        dice
    }

    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % sides.max(1) as u64) as usize
    }

    /// One to six changes.
    fn mutate(&mut self, bytes: &[u8], words: &[&[u8]]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        for _ in 0..1 + self.roll(6) {
            let at = self.roll(bytes.len() + 1);
            let end = (at + self.roll(600)).min(bytes.len());
            match self.roll(8) {
                0 if at < bytes.len() => bytes[at] ^= 1 << self.roll(8),
                1 if at < bytes.len() => {
                    bytes[at] = [0, 0xff, b'/', b'.', b'0', b'9'][self.roll(6)]
                }
                2 => drop(bytes.drain(at..end)),
                3 => {
                    let piece = bytes[at..end].to_vec();
                    let to = self.roll(bytes.len() + 1);
                    drop(bytes.splice(to..to, piece));
                }
                4 => bytes.truncate(at),
                _ => {
                    let word = words[self.roll(words.len())];
                    let end = (at + word.len() * self.roll(2)).min(bytes.len());
                    drop(bytes.splice(at..end, word.iter().copied()));
                }
            }
        }
        bytes
    }

    /// Whole blocks of an archive, and fields of headers, whose checksums are set right again.
    fn mutate_tar(&mut self, archive: &[u8]) -> Vec<u8> {
        let mut blocks: Vec<[u8; 512]> =
            archive.chunks_exact(512).map(|b| b.try_into().unwrap()).collect();
        const NAMES: [&[u8]; 12] = [
            b"a",
            b"a/b",
            b"..",
            b"../x",
            b"/",
            b".wh.a",
            b".wh..wh..opq",
            b"a/.wh.b",
            b".wh.",
            b"link",
            b"link/x",
            b"d",
        ];
        for _ in 0..1 + self.roll(5) {
            let at = self.roll(blocks.len());
            let Some(block) = blocks.get_mut(at) else { break };
            match self.roll(9) {
                0 => block[156] = b"0123456gxLKSVA\0"[self.roll(15)],
                1 | 2 => {
                    let field = [0, 157][self.roll(2)];
                    let name = NAMES[self.roll(NAMES.len())];
                    block[field..field + 100].fill(0);
                    block[field..field + name.len()].copy_from_slice(name);
                }
                3 => {
                    let size = [0, 1, 511, 512, 513, 1 << 20, 1 << 40, u64::MAX >> 3][self.roll(8)];
                    block[124..136].copy_from_slice(&format!("{size:012o}").as_bytes()[..12]);
                }
                4 => {
                    let at = 100 + self.roll(412);
                    block[at] = self.roll(256) as u8;
                }
                5 => {
                    let copy = *block;
                    let to = self.roll(blocks.len() + 1);
                    blocks.insert(to, copy);
                }
                6 => drop(blocks.remove(at)),
                7 => {
                    let other = self.roll(blocks.len());
                    blocks.swap(at, other);
                }
                _ => {
                    *block =
                        self.mutate(&block[..], &NAMES).first_chunk().copied().unwrap_or([0; 512])
                }
            }
        }
        for block in &mut blocks {
            let looks = block[257..262] == *b"ustar" && self.roll(20) > 0;
            if looks {
                block[148..156].fill(b' ');
                let sum: u32 = block.iter().map(|&b| u32::from(b)).sum();
                block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            }
        }
        blocks.concat()
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |n| n.parse().expect("a number"))
}

fn each(mut test: impl FnMut(Dice, &str)) {
    let seed = number("SEED", 1);
    let first = number("FIRST", 0);
    for i in first..first + number("MUTATIONS", 400) {
        test(Dice::new(seed, i), &format!("SEED={seed} FIRST={i} MUTATIONS=1"));
    }
}

struct Area(PathBuf);

impl Area {
    fn new(name: &str) -> Area {
        let dir = format!("imgtool-mutations-{name}-{}", std::process::id());
        let area = Area(std::env::temp_dir().join(dir));
        drop(fs::remove_dir_all(&area.0));
        fs::create_dir_all(&area.0).unwrap();
        area
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

/// Archives in several dialects, of trees with everything in them.
fn archives(area: &Area) -> Vec<Vec<u8>> {
    let script = "mkdir -p t/d/sub t/a t/e; cd t; echo 1 > a/f; ln a/f a/hard; ln -s d link
        ln -s ../.. up; mkfifo pipe; echo 2 > a/.wh.b; : > d/.wh..wh..opq; : > .wh.e
        truncate -s 300K sparse; printf x | dd of=sparse bs=1 seek=100000 conv=notrunc 2> /dev/null
        echo long > $(printf '%0150d' 7); cd ..
        tar -C t --format=ustar -cf 5 a link up d; touch -d 1960-01-01 t/a/f
        tar -C t --format=pax -cf 1 .; tar -C t --format=gnu -S -cf 2 a d link sparse pipe up
        tar -C t --format=posix -S -cf 3 sparse .wh.e a; tar -C t --format=posix -S \
            --sparse-version=0.1 -cf 4 sparse d";
    let done = Command::new("sh").args(["-ec", script]).current_dir(&area.0).status().unwrap();
    assert!(done.success());
    (1..=5).map(|n| fs::read(area.0.join(n.to_string())).unwrap()).collect()
}

/// Paths and types below a directory.
fn listing(root: &Path) -> Vec<String> {
    let mut all = Vec::new();
    let mut todo = vec![PathBuf::new()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(root.join(&dir)).unwrap() {
            let path = dir.join(entry.unwrap().file_name());
            let meta = fs::symlink_metadata(root.join(&path)).unwrap();
            all.push(format!(
                "{path:?} {:?} {}",
                meta.file_type(),
                meta.len() * u64::from(meta.is_file())
            ));
            if meta.is_dir() {
                todo.push(path);
            }
        }
    }
    all.sort();
    all
}

#[test]
fn layers() {
    let area = Area::new("layers");
    let seeds = archives(&area);
    // Nobody needs more than this, and no disk is filled.
    let limits = Limits { max_bytes: 4 << 20, max_entries: 500, ..Limits::default() };
    let options = Options { limits, ownership: Ownership::Ours, ..Options::default() };
    let (mut taken, mut refused) = (0, 0);
    each(|mut dice, case| {
        let world = Area::new("world");
        let (root, again) = (world.0.join("root"), world.0.join("again"));
        fs::create_dir(&root).unwrap();
        fs::create_dir(&again).unwrap();
        fs::write(world.0.join("outside"), "untouched").unwrap();
        let base = &seeds[dice.roll(seeds.len())];
        let layer = dice.mutate_tar(base);
        let open = |path: &Path| File::open(path).unwrap();
        let applied = apply(&layer[..], open(&root).as_fd(), &options);
        drop(check_archive(&layer[..]));
        let mut tree = Tree::new(true);
        let merged = tree.add(&layer[..], &Digest::sha256(&layer), std::io::sink());
        let mut names: Vec<_> =
            fs::read_dir(&world.0).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["again", "outside", "root"], "{case}");
        assert_eq!(fs::read(world.0.join("outside")).unwrap(), b"untouched", "{case}");
        match (applied, merged) {
            (Ok(_), Ok(())) => {
                taken += 1;
                fs::write(world.0.join("layer"), &layer).unwrap();
                let files = [open(&world.0.join("layer"))];
                let mut flat = Vec::new();
                tree.write(&mut flat, None, &files).unwrap_or_else(|e| panic!("{case}: {e}"));
                apply(&flat[..], open(&again).as_fd(), &options)
                    .unwrap_or_else(|e| panic!("{case}: {e}"));
                assert_eq!(listing(&again), listing(&root), "{case}");
            }
            (Err(_), _) => refused += 1,
            (Ok(_), Err(e)) => panic!("{case}: applied, but not merged: {e}"),
        }
    });
    eprintln!("layers: {taken} taken, {refused} refused");
}

const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

const JSON: [&[u8]; 16] = [
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b",",
    b":",
    b"null",
    b"-1",
    b"1e999",
    b"\"layers\":[]",
    b"\"manifests\":[],",
    b"\"mediaType\":",
    b"\\u0000",
    b"18446744073709551616",
    b"\xff",
];

#[test]
fn manifests_and_configurations() {
    let oci = "application/vnd.oci.image.";
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{oci}manifest.v1+json","config":{{"mediaType":"{oci}config.v1+json","digest":"{D}","size":7}},"layers":[{{"mediaType":"{oci}layer.v1.tar","digest":"{D}","size":9,"urls":["x"]}}],"annotations":{{"a":"b"}}}}"#
    );
    let index = format!(
        r#"{{"schemaVersion":2,"mediaType":"{oci}index.v1+json","manifests":[{{"mediaType":"{oci}manifest.v1+json","digest":"{D}","size":7,"platform":{{"os":"linux","architecture":"arm","variant":"v7"}}}}]}}"#
    );
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{"Env":["A=b"],"Cmd":["x"],"Labels":{{"a":"b"}},"Volumes":{{"/v":{{}}}}}},"rootfs":{{"type":"layers","diff_ids":["{D}"]}},"history":[{{"created_by":"x","empty_layer":true}}]}}"#
    );
    let (mut taken, mut refused) = (0, 0);
    each(|mut dice, case| {
        for (text, t) in [(&manifest, "manifest.v1+json"), (&index, "index.v1+json")] {
            let bytes = dice.mutate(text.as_bytes(), &JSON);
            match Document::parse(&bytes, &format!("{oci}{t}")) {
                Ok(Document::Manifest(m)) => assert_eq!(m.bytes(), bytes, "{case}"),
                Ok(Document::Index(i)) => assert_eq!(i.bytes(), bytes, "{case}"),
                Err(_) => refused += 1,
            }
            drop(Document::sniff(&bytes));
        }
        let bytes = dice.mutate(config.as_bytes(), &JSON);
        let Ok(mut parsed) = ImageConfig::parse(&bytes) else { return };
        taken += 1;
        assert_eq!(parsed.to_bytes(), bytes, "{case}");
        let _ = (parsed.platform(), parsed.env(), parsed.cmd(), parsed.labels(), parsed.volumes());
        parsed.set_label("x", "y");
        parsed.remove_in("Volumes", "/v");
        parsed.add_layer(&Digest::sha256(&bytes), serde_json::json!({}));
        // What was changed here parses again.
        ImageConfig::parse(&parsed.to_bytes()).unwrap_or_else(|e| panic!("{case}: {e}"));
    });
    eprintln!("documents: {taken} configurations taken, {refused} documents refused");
}

#[test]
fn references_and_digests() {
    let seeds = ["busybox", "localhost:5000/a/b:tag", "docker.io/library/x:1.2-3_4", "[::1]:80/x"];
    let long = format!("example.org/a.b/c__d-e:T@{D}");
    let words: [&[u8]; 10] =
        [b":", b"/", b"@", b"sha256:", b"..", b"A", b"__", b"\xc3\xa9", b"-", D.as_bytes()];
    let mut taken = 0;
    each(|mut dice, case| {
        for seed in seeds.iter().copied().chain([&long[..]]) {
            let bytes = dice.mutate(seed.as_bytes(), &words);
            let text = String::from_utf8_lossy(&bytes);
            drop(Digest::parse(&text));
            let Ok(name) = Reference::parse(&text) else { continue };
            taken += 1;
            let again =
                Reference::parse(&name.to_string()).unwrap_or_else(|e| panic!("{case}: {e}"));
            assert_eq!(again, name, "{case}");
            let familiar = Reference::parse(&name.familiar());
            assert_eq!(familiar.unwrap_or_else(|e| panic!("{case}: {e}")), name, "{case}");
            assert!(!name.path().split('/').any(|part| matches!(part, "" | "." | "..")), "{case}");
        }
    });
    eprintln!("references: {taken} taken");
}
