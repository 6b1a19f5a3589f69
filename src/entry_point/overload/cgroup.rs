//! What the kernel allows this process of memory, and how much of it is used: its cgroup and those above, version 1
//! and 2 alike.
//!
//! What counts as used is what the kernel could not take back at once: pages of files are given up before anybody is
//! killed, so they do not count, but for those that the disk has yet to take. In the groups above there are neighbours:
//! what they take is no reason to cut anybody off here.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// A limit above this is none: version 1 writes the largest multiple of a page.
const NONE: u64 = 1 << 60;
/// One part in so many is enough for the use of a group to be ours.
const OURS: u64 = 4;
/// More than any `memory.stat` has.
const STAT: usize = 16 * 1024;

/// The cgroups of this process that count its memory.
#[derive(Debug)]
pub(super) struct Groups {
    /// The lowest, with a limit or without: what is used there is our own.
    own: Option<Group>,
    /// Those above it that have a limit.
    above: Vec<Group>,
}

/// One cgroup.
#[derive(Debug)]
struct Group {
    /// Bytes that it may use, if that is limited.
    limit: Option<u64>,
    usage: File,
    stat: File,
    version: &'static Version,
}

/// The two versions: where they are mounted, and how their files are called.
#[derive(Debug)]
struct Version {
    mount: &'static str,
    limits: &'static [&'static str],
    usage: &'static str,
    reclaimable: &'static [&'static str],
    /// What of that has to be written first, which takes as long as the disk does.
    unwritten: &'static [&'static str],
}

static ONE: Version = Version {
    mount: "memory",
    limits: &["memory.limit_in_bytes"],
    usage: "memory.usage_in_bytes",
    reclaimable: &["total_inactive_file", "total_active_file"],
    unwritten: &["total_dirty", "total_writeback"],
};
static TWO: Version = Version {
    mount: "",
    limits: &["memory.max", "memory.high"],
    usage: "memory.current",
    reclaimable: &["inactive_file", "active_file", "slab_reclaimable"],
    unwritten: &["file_dirty", "file_writeback"],
};

impl Groups {
    /// Looks for them.
    pub(super) fn find() -> Self {
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        Self::below(Path::new("/sys/fs/cgroup"), &own)
    }

    /// The same for the mount point `root` and the text of `/proc/self/cgroup`.
    fn below(root: &Path, own: &str) -> Self {
        let mut found = Self { own: None, above: Vec::new() };
        for (folder, version) in folders(root, own) {
            match version.group(&folder) {
                Some(group) if found.own.is_none() => found.own = Some(group),
                Some(group) if group.limit.is_some() => found.above.push(group),
                _ => {}
            }
        }
        found
    }

    /// How much of every limit is used. `enough` is a share below which nobody wants to know more exactly: then files
    /// count too. Where less than a quarter is our own, it is taken to be below the share `ours`.
    pub(super) fn used(&self, buffer: &mut Vec<u8>, enough: f64, ours: f64) -> Vec<Used> {
        let mut all = Vec::new();
        let Some(own) = &self.own else { return all };
        all.extend(own.used(buffer, enough));
        for group in &self.above {
            let Some(mut used) = group.used(buffer, enough) else { continue };
            if used.share() >= ours {
                let own = own.bytes(buffer).unwrap_or(used.bytes);
                if own < used.bytes / OURS {
                    used.bytes = used.bytes.min(part(used.limit, ours).saturating_sub(1));
                }
            }
            all.push(used);
        }
        all
    }
}

/// The folders of the groups, from the lowest up.
fn folders(root: &Path, own: &str) -> Vec<(PathBuf, &'static Version)> {
    let mut found = Vec::new();
    for line in own.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        let version = match controllers {
            "" => &TWO,
            list if list.split(',').any(|one| one == "memory") => &ONE,
            _ => continue,
        };
        let top = root.join(version.mount);
        let mut folder = top.join(path.trim_start_matches('/'));
        // In a container the path may be the host's, of which only the last folder is to be seen: as the top.
        while folder.starts_with(&top) {
            found.push((folder.clone(), version));
            if !folder.pop() {
                break;
            }
        }
    }
    found
}

impl Version {
    fn group(&'static self, folder: &Path) -> Option<Group> {
        let limits = self.limits.iter().filter_map(|name| {
            let text = fs::read_to_string(folder.join(name)).ok()?;
            text.trim().parse::<u64>().ok().filter(|limit| (1..NONE).contains(limit))
        });
        let limit = limits.min();
        let open = |name: &str| File::open(folder.join(name) as PathBuf).ok();
        Some(Group { limit, usage: open(self.usage)?, stat: open("memory.stat")?, version: self })
    }
}

impl Group {
    /// How much of its limit is used; see [`Groups::used`].
    fn used(&self, buffer: &mut Vec<u8>, enough: f64) -> Option<Used> {
        let limit = self.limit?;
        let used = Used { bytes: self.usage(buffer)?, limit };
        if used.share() < enough {
            return Some(used);
        }
        Some(Used { bytes: self.bytes(buffer)?, limit })
    }

    /// Bytes that are used and could not be taken back.
    fn bytes(&self, buffer: &mut Vec<u8>) -> Option<u64> {
        let usage = self.usage(buffer)?;
        let stat = read(&self.stat, buffer)?;
        let unwritten = sum(stat, self.version.unwritten);
        let reclaimable = sum(stat, self.version.reclaimable).saturating_sub(unwritten);
        Some(usage.saturating_sub(reclaimable))
    }

    fn usage(&self, buffer: &mut Vec<u8>) -> Option<u64> {
        read(&self.usage, buffer)?.trim().parse().ok()
    }
}

/// How much of a limit is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Used {
    pub(super) bytes: u64,
    pub(super) limit: u64,
}

impl Used {
    /// As a share.
    #[expect(clippy::cast_precision_loss, reason = "a share need not be exact to the byte")]
    pub(super) fn share(self) -> f64 {
        if self.limit == 0 { 1.0 } else { self.bytes as f64 / self.limit as f64 }
    }

    /// What is left up to a share of the limit.
    pub(super) fn left(self, share: f64) -> u64 {
        part(self.limit, share).saturating_sub(self.bytes)
    }

    /// And what is beyond it.
    pub(super) fn over(self, share: f64) -> u64 {
        self.bytes.saturating_sub(part(self.limit, share))
    }
}

/// A share of something.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share between 0 and 1 of something that is not negative"
)]
pub(super) fn part(whole: u64, share: f64) -> u64 {
    (whole as f64 * share) as u64
}

/// The whole of a small file that changes, read again from its beginning.
fn read<'b>(file: &File, buffer: &'b mut Vec<u8>) -> Option<&'b str> {
    buffer.resize(STAT, 0);
    let length = file.read_at(buffer, 0).ok()?;
    std::str::from_utf8(buffer.get(..length)?).ok()
}

fn sum(stat: &str, names: &[&str]) -> u64 {
    let values = stat.lines().filter_map(|line| {
        let (name, value) = line.split_once(' ')?;
        names.contains(&name).then(|| value.trim().parse::<u64>().ok())?
    });
    values.sum()
}

/// Resident memory of this process.
pub(super) fn resident() -> Option<u64> {
    resident_in(&fs::read_to_string("/proc/self/status").ok()?)
}

fn resident_in(status: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = value.split_ascii_whitespace().next()?.parse().ok()?;
    kilobytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, files: &[(&str, &str)]) {
        fs::create_dir_all(folder).unwrap();
        for (name, text) in files {
            fs::write(folder.join(name), text).unwrap();
        }
    }

    fn used(groups: &Groups, enough: f64) -> Vec<(u64, u64)> {
        let used = groups.used(&mut Vec::new(), enough, 0.95);
        used.into_iter().map(|used| (used.bytes, used.limit)).collect()
    }

    #[test]
    fn version_two_counts_the_group_and_those_above() {
        let root = tempfile::tempdir().unwrap();
        let stat = "anon 70\nfile 25\ninactive_file 20\nactive_file 5\nslab_reclaimable 4\n\
                    file_dirty 2\nfile_writeback 1\n";
        let pod = root.path().join("kubepods/pod7");
        let files = |max, high| {
            [("memory.max", max), ("memory.high", high), ("memory.current", "100\n")]
                .into_iter()
                .chain([("memory.stat", stat)])
                .collect::<Vec<_>>()
        };
        write(&pod, &files("300\n", "max\n"));
        write(&pod.join("doorward"), &files("200\n", "150\n"));
        write(&root.path().join("kubepods"), &files("max\n", "max\n"));
        let groups = Groups::below(root.path(), "0::/kubepods/pod7/doorward\n");
        assert_eq!(used(&groups, 0.0), [(74, 150), (74, 300)], "the smaller of two, then above");
        assert_eq!(used(&groups, 0.5), [(74, 150), (100, 300)], "files are not looked at in vain");
        write(&pod, &[("memory.current", "40\n")]);
        assert_eq!(used(&groups, 0.0)[1], (14, 300), "it is read again");
    }

    /// F-46 where the kernel has version 2: what it writes and what it leaves out.
    #[test]
    fn version_two_is_read_as_the_kernel_writes_it() {
        let root = tempfile::tempdir().unwrap();
        let group = root.path().join("system.slice/doorward.service");
        let own = "0::/system.slice/doorward.service\n";
        let stat = "anon 1040384\nfile 4096\nkernel 1409024\nfile_dirty 8192\nfile_writeback 0\n\
                    inactive_anon 1036288\nactive_anon 4096\ninactive_file 4096\nactive_file 0\n\
                    slab_reclaimable 200704\nslab_unreclaimable 1\nworkingset_refault_file 7\n";
        write(&group, &[("memory.max", "max\n"), ("memory.high", "max\n"), ("memory.stat", stat)]);
        assert!(used(&Groups::below(root.path(), own), 0.0).is_empty(), "no limit");
        write(&group, &[("memory.high", "8388608\n")]);
        assert!(used(&Groups::below(root.path(), own), 0.0).is_empty(), "the controller is off");
        write(&group, &[("memory.current", "4194304\n")]);
        let groups = Groups::below(root.path(), own);
        let reclaimable = 4096 + 200_704 - 8192;
        assert_eq!(used(&groups, 0.0), [(4_194_304 - reclaimable, 8_388_608)]);
        write(&group, &[("memory.stat", "inactive_file 1\nfile_dirty 9\n")]);
        assert_eq!(used(&groups, 0.0), [(4_194_304, 8_388_608)], "more unwritten than there is");
        write(&group, &[("memory.current", "\n")]);
        assert!(used(&groups, 0.0).is_empty());
    }

    #[test]
    fn version_one_has_names_of_its_own() {
        let root = tempfile::tempdir().unwrap();
        let group = root.path().join("memory/docker/abc");
        let stat = "cache 9\ninactive_file 1\ntotal_cache 40\ntotal_inactive_file 30\n\
                    total_active_file 10\ntotal_unevictable 0\n";
        write(
            &group,
            &[
                ("memory.limit_in_bytes", "134217728\n"),
                ("memory.usage_in_bytes", "1040\n"),
                ("memory.stat", stat),
            ],
        );
        write(&root.path().join("memory"), &[("memory.limit_in_bytes", "9223372036854771712\n")]);
        let own = "5:cpuset:/docker/abc\n4:cpu,memory:/docker/abc\n0::/docker/abc\n";
        assert_eq!(used(&Groups::below(root.path(), own), 0.0), [(1000, 134_217_728)]);
    }

    #[test]
    fn a_container_sees_its_group_as_the_top() {
        let root = tempfile::tempdir().unwrap();
        let files = [("memory.max", "50\n"), ("memory.current", "10\n"), ("memory.stat", "")];
        write(root.path(), &files);
        for own in ["0::/\n", "0::/system.slice/docker-abc.scope\n"] {
            assert_eq!(used(&Groups::below(root.path(), own), 0.0), [(10, 50)], "{own}");
        }
    }

    #[test]
    fn what_neighbours_take_is_not_ours() {
        let root = tempfile::tempdir().unwrap();
        let (slice, own) = (root.path().join("slice"), root.path().join("slice/doorward"));
        let files =
            |max, used| [("memory.max", max), ("memory.current", used), ("memory.stat", "")];
        write(&slice, &files("1000\n", "990\n"));
        for (max, ours, expected) in [
            // A group without a limit says what is ours all the same.
            ("max\n", "247\n", vec![(990, 1000)]),
            ("max\n", "246\n", vec![(949, 1000)]),
            ("240\n", "239\n", vec![(239, 240), (949, 1000)]),
        ] {
            write(&own, &files(max, ours));
            let groups = Groups::below(root.path(), "0::/slice/doorward\n");
            assert_eq!(used(&groups, 0.5), expected, "{ours}");
        }
        write(&slice, &files("1000\n", "940\n"));
        let groups = Groups::below(root.path(), "0::/slice/doorward\n");
        assert_eq!(used(&groups, 0.5), [(239, 240), (940, 1000)], "the first step is for all");
    }

    #[test]
    fn no_limit_is_no_group() {
        let root = tempfile::tempdir().unwrap();
        let files = [("memory.max", "max\n"), ("memory.current", "10\n"), ("memory.stat", "")];
        write(root.path(), &files);
        for own in ["0::/\n", "", "nonsense\n::\n"] {
            assert!(used(&Groups::below(root.path(), own), 0.0).is_empty(), "{own}");
        }
    }

    #[test]
    fn resident_memory_is_what_the_kernel_says() {
        assert_eq!(resident_in("VmSize:\t 9 kB\nVmRSS:\t  1024 kB\n"), Some(1 << 20));
        assert_eq!(resident_in("Name: x\n"), None);
        assert!(resident().is_some_and(|bytes| bytes > 0));
    }
}
