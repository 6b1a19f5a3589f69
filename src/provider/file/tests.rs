//! The provider as a whole, on real files. Every wait is for a message, with a deadline.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;
use crate::provider::testing::Words;
use crate::provider::{ConfigReceiver, ProviderHealth};

const DEADLINE: Duration = Duration::from_secs(20);

struct Running {
    updates: ConfigReceiver<Words>,
    again: Arc<LookAgain>,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), ProviderError>>,
}

impl Running {
    fn directory(path: &Path) -> Self {
        let directory = path.to_owned();
        Self::start(FileProviderConfig { directory, ..FileProviderConfig::default() })
    }

    fn file(path: &Path) -> Self {
        let filename = path.to_owned();
        Self::start(FileProviderConfig { filename, ..FileProviderConfig::default() })
    }

    fn start(config: FileProviderConfig) -> Self {
        let again = Arc::new(LookAgain::default());
        let provider = FileProvider::new(config, Arc::clone(&again)).unwrap();
        let (sender, updates) = ConfigSender::new();
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(provider.run(sender, shutdown.clone()));
        Self { updates, again, shutdown, task }
    }

    /// Waits for an update that is as wanted.
    async fn until(&mut self, wanted: impl Fn(&Words, &ProviderHealth) -> bool) -> Update<Words> {
        let fits = |update: &Update<Words>| wanted(&update.config, &update.health);
        let found = timeout(DEADLINE, self.updates.wait_for(fits)).await;
        found.expect("no such update in time").unwrap().clone()
    }

    async fn until_text(&mut self, name: &str, text: Option<&str>) -> Update<Words> {
        self.until(|words, health| words.text(name) == text && *health != ProviderHealth::default())
            .await
    }

    async fn stop(self) {
        self.shutdown.cancel();
        timeout(DEADLINE, self.task).await.unwrap().unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_formats_of_a_directory_are_read_and_watched() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    fs::create_dir(at("sub")).unwrap();
    fs::write(at("a.toml"), "toml = 'one'\n").unwrap();
    fs::write(at("b.yaml"), "yaml: one\n").unwrap();
    fs::write(at("c.yml"), "{{ range list \"x\" \"y\" }}tenant-{{ . }}: ok\n{{ end }}").unwrap();
    fs::write(at("sub/d.json"), "{\"json\": \"one\"}").unwrap();
    fs::write(at("e.conf"), "not: [read").unwrap();
    let mut running = Running::directory(directory.path());
    let update = running.until(|words, _| words.objects.len() == 5).await;
    assert!(update.health.loaded && update.health.error.is_none());
    assert_eq!(update.config.text("tenant-y"), Some("ok"));

    fs::write(at("b.yaml"), "yaml: two\n").unwrap();
    running.until_text("yaml", Some("two")).await;
    fs::write(at("sub/d.json"), "{\"json\": \"two\"}").unwrap();
    running.until_text("json", Some("two")).await;
    fs::remove_file(at("a.toml")).unwrap();
    running.until_text("toml", None).await;
    fs::create_dir_all(at("new/deep")).unwrap();
    fs::write(at("new/deep/f.yml"), "deep: one\n").unwrap();
    running.until_text("deep", Some("one")).await;
    fs::write(at("new/deep/f.yml"), "deep: two\n").unwrap();
    running.until_text("deep", Some("two")).await;
    fs::write(at("tmp"), "yaml: three\n").unwrap();
    fs::rename(at("tmp"), at("b.yaml")).unwrap();
    running.until_text("yaml", Some("three")).await;
    fs::write(at("b.yaml"), "").unwrap();
    running.until_text("yaml", None).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_file_keeps_only_its_own_last_good_content() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    fs::write(at("a.yml"), "a: 0\n").unwrap();
    fs::write(at("b.yml"), "b: 0\n").unwrap();
    let mut running = Running::directory(directory.path());
    running.until_text("a", Some("0")).await;
    for round in 1..=50 {
        fs::write(at("a.yml"), if round % 2 == 0 { "a: [" } else { "a: {{ nothing }}" }).unwrap();
        let update = running.until(|_, health| health.error.is_some()).await;
        assert_eq!(update.config.text("a"), Some(&*(round - 1).to_string()));
        assert!(update.health.error.unwrap().contains("a.yml:1:"));
        assert!(update.health.loaded);
        assert!(!update.config.diagnostics.is_empty());
        fs::write(at("b.yml"), format!("b: {round}\n")).unwrap();
        running.until_text("b", Some(&round.to_string())).await;
        fs::write(at("a.yml"), format!("a: {round}\n")).unwrap();
        let now = round.to_string();
        // On a busy machine the file may be seen empty, before its content is written.
        let mended = running
            .until(|config, health| health.error.is_none() && config.text("a") == Some(&*now));
        assert!(mended.await.config.diagnostics.is_empty());
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_broken_at_the_start_is_missing_until_it_is_mended() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    fs::write(at("a.yml"), "a: [\n").unwrap();
    fs::write(at("b.yml"), "b: one\n").unwrap();
    let mut running = Running::directory(directory.path());
    let update = running.until_text("b", Some("one")).await;
    assert_eq!((update.health.loaded, update.health.failures), (false, 1));
    fs::write(at("a.yml"), "a: one\n").unwrap();
    let update = running.until_text("a", Some("one")).await;
    assert!(update.health.loaded);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_one_file_may_go_and_come_back() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("dynamic.yml");
    let mut running = Running::file(&path);
    let update = running.until(|_, health| health.error.is_some()).await;
    assert!(!update.health.loaded);
    fs::write(&path, "a: one\n").unwrap();
    assert!(running.until_text("a", Some("one")).await.health.loaded);
    fs::remove_file(&path).unwrap();
    let update = running.until(|_, health| health.error.is_some()).await;
    assert_eq!(update.config.text("a"), Some("one"));
    assert!(update.health.error.unwrap().ends_with("its last good content stays in use"));
    fs::write(&path, "a: two\n").unwrap();
    assert_eq!(running.until_text("a", Some("two")).await.health.error, None);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn swapped_volumes_are_noticed_each_time() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: String| directory.path().join(name);
    let swap = |round: u32| {
        fs::create_dir(at(format!("..{round}"))).unwrap();
        fs::write(at(format!("..{round}/a.yml")), format!("a: {round}\n")).unwrap();
        symlink(format!("..{round}"), at("..data_tmp".to_owned())).unwrap();
        fs::rename(at("..data_tmp".to_owned()), at("..data".to_owned())).unwrap();
    };
    swap(0);
    symlink("..data/a.yml", at("a.yml".to_owned())).unwrap();
    let mut whole = Running::directory(directory.path());
    let mut single = Running::file(&at("a.yml".to_owned()));
    for round in 0..=100_u32 {
        let before = tokio::time::Instant::now();
        if round > 0 {
            swap(round);
            fs::remove_dir_all(at(format!("..{}", round - 1))).unwrap();
        }
        for running in [&mut whole, &mut single] {
            let update = running.until_text("a", Some(&round.to_string())).await;
            assert_eq!(update.config.objects.len(), 1);
            assert_eq!(update.health.failures, 0);
        }
        assert!(before.elapsed() < Duration::from_secs(2), "round {round}: only the poll saw it");
    }
    whole.stop().await;
    single.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_linked_directory_on_the_way_may_be_swapped() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    for version in ["one", "two"] {
        fs::create_dir(at(version)).unwrap();
        fs::write(at(version).join("a.yml"), format!("a: {version}\n")).unwrap();
    }
    symlink("one", at("current")).unwrap();
    let mut whole = Running::directory(&at("current"));
    let mut single = Running::file(&at("current/a.yml"));
    whole.until_text("a", Some("one")).await;
    single.until_text("a", Some("one")).await;
    symlink("two", at("next")).unwrap();
    fs::rename(at("next"), at("current")).unwrap();
    whole.until_text("a", Some("two")).await;
    single.until_text("a", Some("two")).await;
    fs::write(at("two/a.yml"), "a: three\n").unwrap();
    whole.until_text("a", Some("three")).await;
    single.until_text("a", Some("three")).await;
    whole.stop().await;
    single.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_file_is_never_applied() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.yml");
    fs::write(&path, "a: one\nb: one\n").unwrap();
    let mut running = Running::directory(directory.path());
    running.until_text("b", Some("one")).await;
    let mut file = fs::File::create(&path).unwrap();
    file.write_all(b"a: two\n").unwrap();
    file.flush().unwrap();
    let early = timeout(Duration::from_millis(300), running.updates.changed()).await;
    assert!(early.is_err(), "the first half is valid, but not meant");
    file.write_all(b"b: two\n").unwrap();
    drop(file);
    let update = running.until_text("b", Some("two")).await;
    assert_eq!((update.config.text("a"), update.health.failures), (Some("two"), 0));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trigger_reads_again_without_watching() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.yml");
    fs::write(&path, "a: one\n").unwrap();
    let config = FileProviderConfig {
        directory: directory.path().to_owned(),
        watch: false,
        ..FileProviderConfig::default()
    };
    let mut running = Running::start(config);
    running.until_text("a", Some("one")).await;
    fs::write(&path, "a: two\n").unwrap();
    let unasked = timeout(Duration::from_millis(200), running.updates.changed()).await;
    assert!(unasked.is_err());
    assert_eq!(running.again.ask(), 1);
    let found = running.until_text("a", Some("two")).await;
    assert_eq!(found.asked, 1);
    assert_eq!(running.again.ask(), 2);
    let again = timeout(DEADLINE, running.updates.wait_for(|update| update.asked == 2)).await;
    let again = again.expect("who asks gets an answer").unwrap().clone();
    assert!(Arc::ptr_eq(&again.config, &found.config), "nothing is new");
    running.stop().await;
}

#[test]
fn options_are_checked() {
    let config: FileProviderConfig = serde_json::from_str("{}").unwrap();
    assert!(config.watch);
    let new = |config| FileProvider::<Words>::new(config, Arc::default());
    assert!(matches!(new(config), Err(ProviderError::NothingToRead)));
    let config: FileProviderConfig =
        serde_json::from_str(r#"{"filename": "a.ini", "debugLogGeneratedTemplate": true}"#)
            .unwrap();
    assert!(config.debug_log_generated_template);
    assert!(matches!(new(config), Err(ProviderError::UnknownFormat(_))));
    let config: FileProviderConfig = serde_json::from_str(r#"{"filename": "a.yml"}"#).unwrap();
    assert!(matches!(config.place(), Ok(Place::File(path)) if path.is_absolute()));
    let config = r#"{"filename": "a.ini", "directory": "/does/not/exist"}"#;
    let update = new(serde_json::from_str(config).unwrap()).unwrap().read_once();
    assert!(!update.health.loaded);
    assert!(update.health.error.unwrap().contains("/does/not/exist"));
}

#[test]
fn a_bad_file_is_explained_by_its_place() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.yml");
    let read = |content: &[u8]| {
        fs::write(&path, content).unwrap();
        let filename = path.clone();
        let config = FileProviderConfig { filename, ..FileProviderConfig::default() };
        let provider = FileProvider::<Words>::new(config, Arc::default()).unwrap();
        provider.read_once().health.error.unwrap()
    };
    assert!(read(b"a: 1\nb: \xff\n").contains("a.yml:2:4: error: the file is not UTF-8"));
    let error = read(b"{{ range until 3 }}\na: [\n{{ end }}");
    assert!(error.contains("a.yml (generated text):"), "{error}");
    let error = read(b"a: 1\nb: {{ env }}\n");
    assert!(error.contains("a.yml:2:"), "{error}");
}
