//! Configuration and certificates that change in awkward ways, under the load of the fault table: rows
//! F-23 to F-35 with their bars. Reloads themselves (F-18, F-29, F-30) are in `reload` and `system`.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use crate::harness::binary::Process;
use crate::harness::certs::{Ca, Pair, Tls};
use crate::harness::load::{Load, Stage, Traffic};
use crate::harness::{Ask, Client, Origin, Proxy, everything_to, pause, until};

/// The bar of the table for most of these rows.
const SOON: Duration = Duration::from_secs(2);
/// What the machine may add to it while other tests run.
const SLACK: Duration = Duration::from_secs(2);

const FAILED: &str = "traefik_config_reloads_failure_total";

/// The path at which this configuration answers beside the load's.
fn marked(stage: &Stage, mark: usize) -> String {
    stage.config(&format!(
        "    mark: {{rule: 'Host(`mark.test`) && Path(`/{mark}`)', service: load}}\n"
    ))
}

/// Whether the configuration with this mark is in force.
fn is_in_force(client: &mut Client, mark: usize) -> bool {
    client.send(&Ask::get(&format!("mark.test/{mark}"))).unwrap().status == 200
}

/// F-23: a file that is written in two parts, 300 ms apart, the first of which would be a
/// configuration without any router, or none at all.
#[test]
fn a_file_that_is_half_written_is_not_believed() {
    let stage = Stage::start();
    let proxy = Proxy::start(&marked(&stage, 0));
    let load = Load::start(proxy.address("web"), Traffic::USUAL);
    let mut client = proxy.client();
    let mut slowest = Duration::ZERO;
    for mark in 1..=6 {
        let text = marked(&stage, mark);
        let routers = text.find("  routers:").unwrap();
        let (first, rest) = text.split_at(if mark % 2 == 0 { routers } else { routers + 20 });
        let mut file = fs::File::create(proxy.file()).unwrap();
        file.write_all(first.as_bytes()).unwrap();
        pause(Duration::from_millis(300));
        file.write_all(rest.as_bytes()).unwrap();
        drop(file);
        let whole = Instant::now();
        until("the whole file counts", || is_in_force(&mut client, mark));
        slowest = slowest.max(whole.elapsed());
    }
    let report = load.end();
    assert!(report.is_clean(), "{report:?}");
    assert!(slowest < SOON + SLACK, "{slowest:?}");
    println!("F-23: in force after at most {slowest:?}, {report:?}");
}

/// F-25: the one file of the configuration is deleted: everything stays as it was, and somebody is told.
#[test]
fn a_deleted_file_takes_nothing_along() {
    let stage = Stage::start();
    let mut setup = Proxy::with(json!({}));
    let file = setup.directory().join("only.yml");
    fs::write(&file, marked(&stage, 1)).unwrap();
    setup.set("providers", &json!({"file": {"directory": "", "filename": file}}));
    let proxy = setup.start("");
    let load = Load::start(proxy.address("web"), Traffic::USUAL);
    let before = proxy.metric(FAILED);
    fs::remove_file(&file).unwrap();
    until("it is counted", || proxy.metric(FAILED) > before);
    let requests = load.requests();
    until("requests go on", || load.requests() > requests + 50);
    assert!(is_in_force(&mut proxy.client(), 1));
    fs::write(&file, marked(&stage, 2)).unwrap();
    until("it counts again", || is_in_force(&mut proxy.client(), 2));
    let report = load.end();
    assert!(report.is_clean(), "{report:?}");
    println!("F-25: {report:?}");
}

/// F-26: Kubernetes swaps a link, a hundred times, and each time it is noticed although no event names
/// the file.
#[test]
fn a_hundred_swapped_links_are_noticed() {
    let stage = Stage::start();
    let mut setup = Proxy::with(json!({}));
    let volume = setup.directory().join("volume");
    let swap = |mark: usize| {
        let fresh = format!("..{mark}");
        fs::create_dir_all(volume.join(&fresh)).unwrap();
        fs::write(volume.join(&fresh).join("app.yml"), marked(&stage, mark)).unwrap();
        symlink(&fresh, volume.join("..data_tmp")).unwrap();
        fs::rename(volume.join("..data_tmp"), volume.join("..data")).unwrap();
        if mark > 1 {
            fs::remove_dir_all(volume.join(format!("..{}", mark - 1))).unwrap();
        }
    };
    swap(1);
    symlink("..data/app.yml", volume.join("app.yml")).unwrap();
    setup.set("providers", &json!({"file": {"directory": volume}}));
    let proxy = setup.start("");
    let load = Load::start(proxy.address("web"), Traffic::USUAL);
    let mut client = proxy.client();
    let mut slowest = Duration::ZERO;
    for mark in 2..=101 {
        swap(mark);
        let swapped = Instant::now();
        until("the new content counts", || is_in_force(&mut client, mark));
        slowest = slowest.max(swapped.elapsed());
    }
    let report = load.end();
    assert!(report.is_clean(), "{report:?}");
    assert!(slowest < SOON + SLACK, "{slowest:?}");
    println!("F-26: in force after at most {slowest:?}, {report:?}");
}

/// F-28: invalid and valid content a hundred times in turn; the last good one stays, and it can be
/// seen when that was.
#[test]
fn invalid_content_comes_and_goes() {
    let stage = Stage::start();
    let proxy = Proxy::start(&marked(&stage, 0));
    let load = Load::start(proxy.address("web"), Traffic::USUAL);
    let mut client = proxy.client();
    let success = "traefik_config_last_reload_success";
    let mut last = proxy.metric(success);
    for mark in 1..=100 {
        let before = proxy.metric(FAILED);
        proxy.write(&format!("http: [ # {mark}"));
        until("it is counted", || proxy.metric(FAILED) > before);
        assert!(is_in_force(&mut client, mark - 1));
        assert!(proxy.metric(success) <= last, "it was no success");
        proxy.write(&marked(&stage, mark));
        until("the good one counts", || is_in_force(&mut client, mark));
        until("its time is told", || proxy.metric(success) >= last);
        last = proxy.metric(success);
    }
    let report = load.end();
    assert!(report.is_clean(), "{report:?}");
    println!("F-28: {report:?}");
}

/// F-32: the system has no watch left for the program, which says so, and sees every change all the
/// same within ten seconds. Needs a user namespace, whose limit is its own.
#[test]
fn without_watches_files_are_looked_at() {
    let origin = Origin::start();
    let mut command = Command::new("unshare");
    let script = "echo 0 >/proc/sys/user/max_inotify_instances && exec \"$@\"";
    command.args(["-r", "sh", "-c", script, "sh", env!("CARGO_BIN_EXE_doorward")]);
    let process = Process::by(command, &json!({}), &everything_to(&origin.url()));
    let told = "changes of files are not reported by the system";
    assert!(process.log().contains(told), "{}", process.log());
    let mut client = Client::connect(process.address("web")).unwrap();
    let mut slowest = Duration::ZERO;
    for path in ["/one", "/two"] {
        process.write(
            &everything_to(&origin.url()).replace("PathPrefix(`/`)", &format!("Path(`{path}`)")),
        );
        let written = Instant::now();
        until("the change is seen", || {
            let mut status = |path: &str| client.send(&Ask::get(path)).unwrap().status;
            (status(path), status("/")) == (200, 404)
        });
        slowest = slowest.max(written.elapsed());
    }
    assert!(slowest > Duration::from_millis(500), "{slowest:?}: there was a watch");
    assert!(slowest < Duration::from_secs(10), "{slowest:?}");
    println!("F-32: seen after at most {slowest:?}");
}

fn secured(directory: &Path, origin: &Origin) -> String {
    let tls = format!(
        "tls:\n  certificates:\n    - {{certFile: '{}', keyFile: '{}'}}\n",
        directory.join("a.pem").display(),
        directory.join("a.key.pem").display()
    );
    format!(
        "http:
  routers:
    all: {{rule: Host(`a.test`), service: app, tls: {{}}}}
  services:
    app: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}
{tls}",
        origin.url()
    )
}

/// F-33, F-35: certificates are replaced one file after the other, and by pairs that do not match, while
/// clients shake hands all the time: none fails, each is shown one of the good certificates, and a new
/// one within five seconds. Here some hundreds of handshakes and not 10,000.
#[test]
fn no_handshake_fails_while_certificates_are_replaced() {
    let (origin, ca) = (Origin::start(), Ca::new());
    let setup = Proxy::with(json!({}));
    let directory = setup.directory().to_owned();
    let mut good = vec![ca.issue(&["a.test"])];
    good[0].write(&directory, "a");
    let proxy = setup.start(&secured(&directory, &origin));
    let at = proxy.address("websecure");
    let served = || Tls::anyone().connect(at, Some("a.test")).unwrap().certificate;
    good.extend((0..4).map(|_| ca.issue(&["a.test"])));
    let known: Vec<_> = good.iter().map(Pair::der).collect();
    let (over, handshakes) = (AtomicBool::new(false), AtomicUsize::new(0));
    let mut slowest = Duration::ZERO;
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.load(Ordering::Acquire) {
                    assert!(known.contains(&served()), "one of the good ones");
                    handshakes.fetch_add(1, Ordering::AcqRel);
                }
            });
        }
        for pair in &good[1..] {
            fs::write(directory.join("a.pem"), &pair.cert).unwrap();
            pause(Duration::from_millis(200));
            fs::write(directory.join("a.key.pem"), &pair.key).unwrap();
            let written = Instant::now();
            until("the new pair is served", || served() == pair.der());
            slowest = slowest.max(written.elapsed());
            let stranger = Pair { cert: pair.cert.clone(), key: good[0].key.clone() };
            let before = proxy.reloads();
            stranger.write(&directory, "a");
            until("it was read", || proxy.reloads() > before);
            assert!(served() == pair.der(), "a pair that does not match is not served");
        }
        over.store(true, Ordering::Release);
    });
    let handshakes = handshakes.into_inner();
    assert!(handshakes > 100, "{handshakes}");
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
    println!("F-33: {handshakes} handshakes, a new certificate after at most {slowest:?}");
}
