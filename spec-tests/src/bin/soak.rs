//! `soak [--seconds N] [--seed N] [--only VERB] [--workers N] [--sample RUNS]`: fault injection at length.

#[cfg(target_arch = "x86_64")]
fn main() -> std::process::ExitCode {
    use spec_tests::inject::{Extent, soak};
    let mut extent = Extent {
        time: std::time::Duration::from_secs(900),
        seed: 1,
        only: String::new(),
        workers: std::thread::available_parallelism().map_or(1, |n| n.get()),
        sample: None,
    };
    let mut words = std::env::args().skip(1);
    while let Some(flag) = words.next() {
        let value = words.next().unwrap_or_default();
        let number = || value.parse::<u64>().unwrap_or_else(|_| panic!("{flag} wants a number"));
        match flag.as_str() {
            "--seconds" => extent.time = std::time::Duration::from_secs(number()),
            "--seed" => extent.seed = number().max(1),
            "--only" => extent.only = value,
            "--sample" => extent.sample = Some(number() as usize),
            "--workers" => extent.workers = number().max(1) as usize,
            _ => panic!("unknown flag {flag}"),
        }
    }
    let report = soak(&extent);
    print!("{}", report.text);
    std::process::ExitCode::from(u8::from(report.findings > 0))
}

#[cfg(not(target_arch = "x86_64"))]
fn main() {
    eprintln!("soak: written for x86_64 alone");
}
