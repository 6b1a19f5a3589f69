//! Runs scenarios in many orders, and says how many there were.

use std::future::Future as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::process::ExitCode;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use shuttle::scheduler::{DfsScheduler, PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, MaxSteps, Runner};

/// Something that threads do, and what holds in whatever order they do it.
pub(crate) struct Scenario {
    /// `module::name`.
    pub(crate) name: &'static str,
    /// The invariant, as a sentence.
    pub(crate) holds: &'static str,
    /// Whether it also goes by hashes or numbers that are new each time, so that orders cannot be told apart.
    pub(crate) by_chance: bool,
    /// Does it once; panics when it does not hold.
    pub(crate) run: fn(),
}

/// Scenarios with at most this many orders are tried in all of them.
const ALL: usize = 1_000;
const RANDOM: usize = 1_000;
const UNLUCKY: usize = 500;
/// How often a thread is overtaken at an unlucky place.
const DEPTH: usize = 3;
/// The same on every machine: what fails here fails everywhere.
const SEED: u64 = 0x0D00_2A2D;

const HELP: &str = "options: [--list] [--times N] [--seed N] [--replay SCHEDULE] [part of a name]
--times N      N times as many orders, the further ones from other seeds
--replay X     the order that a failure has printed, of the one scenario that is named";

#[derive(Default)]
struct Options {
    filter: Option<String>,
    list: bool,
    times: Option<u64>,
    seed: Option<u64>,
    replay: Option<String>,
}

/// Runs what the command line asks for, as a test does.
pub(crate) fn run(groups: &[&[Scenario]]) -> ExitCode {
    let Some(options) = options() else {
        println!("{HELP}");
        return ExitCode::SUCCESS;
    };
    let wanted: Vec<&Scenario> = groups
        .iter()
        .flat_map(|group| group.iter())
        .filter(|one| options.filter.as_ref().is_none_or(|filter| one.name.contains(filter)))
        .collect();
    if options.list {
        for one in &wanted {
            println!("{}: test", one.name);
        }
        return ExitCode::SUCCESS;
    }
    // A clock that only scenarios move.
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.unwrap();
    let _clock = runtime.enter();
    println!("\nrunning {} scenarios", wanted.len());
    let began = Instant::now();
    let (mut failed, mut orders) = (Vec::new(), 0);
    for one in &wanted {
        let began = Instant::now();
        if let Ok((count, how)) = catch_unwind(AssertUnwindSafe(|| try_orders(one, &options))) {
            orders += count;
            println!("{} ... ok ({count} orders, {how}; {:.1?})", one.name, began.elapsed());
        } else {
            println!("{} ... FAILED: {}", one.name, one.holds);
            failed.push(one.name);
        }
    }
    let verdict = if failed.is_empty() { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {verdict}. {} passed; {} failed; 0 ignored; 0 measured; {} filtered out; finished in {:.2}s",
        wanted.len() - failed.len(),
        failed.len(),
        groups.iter().map(|group| group.len()).sum::<usize>() - wanted.len(),
        began.elapsed().as_secs_f64(),
    );
    println!("{orders} orders\n");
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(101) }
}

/// How many orders were tried, and how they were chosen.
fn try_orders(one: &Scenario, options: &Options) -> (usize, &'static str) {
    if let Some(schedule) = &options.replay {
        shuttle::replay(one.run, schedule);
        return (1, "replayed");
    }
    let mut count = 0;
    if !one.by_chance {
        count = attempt(DfsScheduler::new(Some(ALL), false), one);
        if count < ALL {
            return (count, "all there are");
        }
    }
    for turn in 0..options.times.unwrap_or(1) {
        let seed = options.seed.unwrap_or(SEED).wrapping_add(turn);
        count += attempt(RandomScheduler::new_from_seed(seed, RANDOM), one);
        count += attempt(PctScheduler::new_from_seed(seed, DEPTH, UNLUCKY), one);
    }
    (count, "random and unlucky ones")
}

fn attempt(scheduler: impl Scheduler + 'static, one: &Scenario) -> usize {
    let mut config = Config::new();
    config.max_steps = MaxSteps::FailAfter(100_000);
    config.stack_size = 1 << 18;
    Runner::new(scheduler, config).run(one.run)
}

/// `None` when help is asked for. Options of the test harness of Rust are passed over.
fn options() -> Option<Options> {
    let mut options = Options::default();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "-h" | "--help" => return None,
            "--list" => options.list = true,
            "--times" => options.times = Some(arguments.next()?.parse().ok()?),
            "--seed" => options.seed = Some(arguments.next()?.parse().ok()?),
            "--replay" => options.replay = Some(arguments.next()?),
            "--test-threads" | "--skip" | "--format" | "--color" | "--logfile" => {
                arguments.next();
            }
            flag if flag.starts_with('-') => {}
            part => options.filter = Some(part.to_owned()),
        }
    }
    Some(options)
}

/// Moves the clock.
pub(crate) fn pass(time: Duration) {
    let mut moved = pin!(tokio::time::advance(time));
    let _ = moved.as_mut().poll(&mut Context::from_waker(Waker::noop()));
}

/// Threads that do these things at once; returns when all of them are over.
pub(crate) fn at_once(things: Vec<Box<dyn FnOnce() + Send>>) {
    let threads: Vec<_> = things.into_iter().map(shuttle::thread::spawn).collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

/// `count` threads that do the same; what each returned.
pub(crate) fn each<T: Send + 'static>(
    count: usize,
    thing: impl Fn(usize) -> T + Clone + Send + 'static,
) -> Vec<T> {
    let threads: Vec<_> = (0..count)
        .map(|number| {
            let thing = thing.clone();
            shuttle::thread::spawn(move || thing(number))
        })
        .collect();
    threads.into_iter().map(|thread| thread.join().unwrap()).collect()
}
