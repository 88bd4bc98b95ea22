//! Memory: what the machine can give, and what a model will take before it is loaded.
//!
//! Not an allocator: numbers only. Container limits (control groups v1 and v2) count as the machine's own.

use std::fmt;
use std::path::{Path, PathBuf};

use sconce_models::{CacheType, Inspection, KvCache, ModelKind};

use crate::config::{EngineConfig, MemoryBudget};

/// Memory as it is now, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MachineMemory {
    /// Installed, or the control group's limit if that is less.
    pub total: u64,
    /// What can be had without swapping, within the control group's limit.
    pub available: u64,
    /// The control group's limit, if there is one.
    pub limit: Option<u64>,
}

impl MachineMemory {
    /// Asks the system; none where it cannot be asked.
    pub fn now() -> Option<Self> {
        Self::below(Path::new("/")).or_else(Self::of_sysctl)
    }

    /// Reads `/proc` and `/sys` below `root`.
    fn below(root: &Path) -> Option<Self> {
        let meminfo = std::fs::read_to_string(root.join("proc/meminfo")).ok()?;
        let field = |name: &str| {
            let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
            let kilobytes: u64 = line.trim_start_matches(':').split_whitespace().next()?.parse().ok()?;
            kilobytes.checked_mul(1024)
        };
        let total = field("MemTotal")?;
        let available = field("MemAvailable").or_else(|| field("MemFree"))?;
        let groups = control_groups(root);
        let limit = groups.iter().map(|group| group.limit).min().filter(|limit| *limit < total);
        let in_groups = groups.iter().map(|group| group.limit.saturating_sub(group.used)).min();
        Some(Self {
            total: limit.map_or(total, |limit| limit.min(total)),
            available: in_groups.map_or(available, |left| left.min(available)),
            limit,
        })
    }

    /// Where there is no `/proc`: the installed memory, and three quarters of it as what can be had.
    fn of_sysctl() -> Option<Self> {
        let output = std::process::Command::new("sysctl").args(["-n", "hw.memsize"]).output().ok()?;
        let total: u64 = String::from_utf8(output.stdout).ok()?.trim().parse().ok()?;
        Some(Self { total, available: total / 4 * 3, limit: None })
    }
}

/// One control group's limit and use; what can be taken back from its page cache is not counted as used.
#[derive(Debug)]
struct ControlGroup {
    limit: u64,
    used: u64,
}

/// The limits of this process's group and of all above it.
fn control_groups(root: &Path) -> Vec<ControlGroup> {
    let Ok(lines) = std::fs::read_to_string(root.join("proc/self/cgroup")) else { return Vec::new() };
    let mut groups = Vec::new();
    for line in lines.lines() {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, path) =
            (parts.next(), parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let (mount, limit, used, reclaimable) = match controllers {
            "" => ("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file "),
            names if names.split(',').any(|name| name == "memory") => (
                "sys/fs/cgroup/memory",
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
                "total_inactive_file ",
            ),
            _ => continue,
        };
        let mut folder = Some(PathBuf::from(path.trim_start_matches('/')));
        while let Some(current) = folder {
            let at = root.join(mount).join(&current);
            groups.extend(control_group(&at, limit, used, reclaimable));
            folder = current.parent().map(Path::to_owned);
        }
    }
    groups
}

fn control_group(folder: &Path, limit: &str, used: &str, reclaimable: &str) -> Option<ControlGroup> {
    let number = |name: &str| std::fs::read_to_string(folder.join(name)).ok()?.trim().parse::<u64>().ok();
    let limit = number(limit)?;
    let used = number(used).unwrap_or(0);
    let statistics = std::fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
    let cached = statistics.lines().find_map(|line| line.strip_prefix(reclaimable)?.trim().parse().ok());
    Some(ControlGroup { limit, used: used.saturating_sub(cached.unwrap_or(0)) })
}

/// What all models may take together; none if nothing is known to bound it (a device whose memory cannot be asked).
pub(super) fn budget(configured: MemoryBudget, machine: Option<MachineMemory>) -> Option<u64> {
    match (configured, machine) {
        (MemoryBudget::Bytes(bytes), _) => Some(bytes),
        (MemoryBudget::Percent(percent), Some(machine)) => Some(machine.available / 100 * u64::from(percent)),
        (MemoryBudget::Percent(_), None) => None,
    }
}

/// What one model will take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MemoryPlan {
    /// Bytes of weights.
    pub weights: u64,
    /// Bytes of keys and values.
    pub cache: u64,
    /// Blocks that these are.
    pub cache_blocks: usize,
    /// Most bytes of temporary tensors in one pass.
    pub scratch: u64,
}

impl MemoryPlan {
    /// Bytes in all.
    pub fn total(&self) -> u64 {
        self.weights.saturating_add(self.cache).saturating_add(self.scratch)
    }
}

impl fmt::Display for MemoryPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "weights {} MiB", mib(self.weights))?;
        if self.cache_blocks > 0 {
            let tokens = grouped(self.cache_blocks * KvCache::BLOCK_SIZE);
            write!(f, ", KV {} MiB = {tokens} tokens", mib(self.cache))?;
        }
        write!(f, ", scratch {} MiB", mib(self.scratch))
    }
}

/// Whole mebibytes, rounded up.
pub(super) fn mib(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

/// `26214` → `26,214`.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Plans for one model: the cache it should have, and the least it can do with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MemoryNeed {
    fixed: MemoryPlan,
    bytes_per_block: u64,
    wanted_blocks: usize,
    least_blocks: usize,
}

/// Conversations that the cache has room for when nobody says how large it is to be, and how long each may be.
const CONVERSATIONS: usize = 4;
const CONVERSATION_TOKENS: usize = 8192;
/// A model that cannot hold at least so many tokens (or its context, if that is shorter) is not worth loading.
const LEAST_TOKENS: usize = 2048;

impl MemoryNeed {
    /// From what the files say. `context` is the longest context that is served.
    pub(super) fn of(
        inspection: &Inspection,
        engine: &EngineConfig,
        cache_type: CacheType,
        context: usize,
    ) -> Self {
        let spec = &inspection.spec;
        let batch_tokens = match spec.kind {
            ModelKind::Causal => engine.max_batch_tokens,
            ModelKind::Embedding | ModelKind::CrossEncoder => engine.embedding_batch_tokens.max(context),
        };
        let scratch = spec.scratch_bytes_per_token.saturating_mul(batch_tokens as u64);
        let fixed = MemoryPlan { weights: spec.weights_bytes, scratch, ..MemoryPlan::default() };
        let bytes_per_block = KvCache::bytes_per_block(spec, cache_type).max(1);
        if spec.kind != ModelKind::Causal {
            return Self { fixed, bytes_per_block, wanted_blocks: 0, least_blocks: 0 };
        }
        let blocks = |tokens: usize| tokens.div_ceil(KvCache::BLOCK_SIZE).max(1);
        match engine.cache_bytes {
            Some(bytes) => {
                let exact = usize::try_from(bytes / bytes_per_block).unwrap_or(usize::MAX).max(1);
                Self { fixed, bytes_per_block, wanted_blocks: exact, least_blocks: exact }
            }
            None => Self {
                fixed,
                bytes_per_block,
                wanted_blocks: blocks(context.min(CONVERSATION_TOKENS).saturating_mul(CONVERSATIONS)),
                least_blocks: blocks(context.min(LEAST_TOKENS)),
            },
        }
    }

    /// The plan with as large a cache as is wanted and `room` allows (half of what the rest leaves, but never less
    /// than the least).
    pub(super) fn within(&self, room: Option<u64>) -> MemoryPlan {
        let Some(room) = room else { return self.with_blocks(self.wanted_blocks) };
        let rest = room.saturating_sub(self.fixed.total());
        let affordable = usize::try_from(rest / 2 / self.bytes_per_block).unwrap_or(usize::MAX);
        self.with_blocks(self.wanted_blocks.min(affordable).max(self.least_blocks))
    }

    /// The smallest plan.
    pub(super) fn least(&self) -> MemoryPlan {
        self.with_blocks(self.least_blocks)
    }

    fn with_blocks(&self, blocks: usize) -> MemoryPlan {
        MemoryPlan {
            cache: self.bytes_per_block.saturating_mul(blocks as u64),
            cache_blocks: blocks,
            ..self.fixed
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, name: &str, text: &str) {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn machine(files: &[(&str, &str)]) -> Option<MachineMemory> {
        let root = tempfile::tempdir().unwrap();
        write(
            root.path(),
            "proc/meminfo",
            "MemTotal:       8000 kB\nMemFree: 1 kB\nMemAvailable:    6000 kB\n",
        );
        for (name, text) in files {
            write(root.path(), name, text);
        }
        MachineMemory::below(root.path())
    }

    #[test]
    fn the_control_groups_limit_is_the_machines() {
        let free = machine(&[]).unwrap();
        assert_eq!(free, MachineMemory { total: 8000 << 10, available: 6000 << 10, limit: None });

        let version_two = [
            ("proc/self/cgroup", "0::/a/b\n"),
            ("sys/fs/cgroup/a/memory.max", "4096000\n"),
            ("sys/fs/cgroup/a/memory.current", "3000000\n"),
            ("sys/fs/cgroup/a/memory.stat", "anon 1\ninactive_file 1000000\n"),
            ("sys/fs/cgroup/a/b/memory.max", "max\n"),
        ];
        let limited = machine(&version_two).unwrap();
        assert_eq!(limited, MachineMemory { total: 4096000, available: 2096000, limit: Some(4096000) });

        let version_one = [
            ("proc/self/cgroup", "5:cpu,memory:/docker/x\n1:name=systemd:/\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "2048000\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "48000\n"),
        ];
        assert_eq!(machine(&version_one).unwrap().available, 2000000);

        let unlimited = [
            ("proc/self/cgroup", "3:memory:/\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ];
        assert_eq!(machine(&unlimited).unwrap().limit, None);
    }

    #[test]
    fn a_budget_is_a_share_of_what_is_free() {
        let machine = MachineMemory { total: 1000, available: 500, limit: None };
        assert_eq!(budget(MemoryBudget::Percent(80), Some(machine)), Some(400));
        assert_eq!(budget(MemoryBudget::Bytes(7), Some(machine)), Some(7));
        assert_eq!(budget(MemoryBudget::Percent(80), None), None);
    }

    #[test]
    fn the_cache_shrinks_to_the_room_but_not_below_the_least() {
        let fixed = MemoryPlan { weights: 100, scratch: 20, ..MemoryPlan::default() };
        let need = MemoryNeed { fixed, bytes_per_block: 10, wanted_blocks: 50, least_blocks: 4 };
        assert_eq!(need.within(None).cache_blocks, 50);
        assert_eq!(need.within(Some(10_000)).cache_blocks, 50);
        assert_eq!(need.within(Some(320)).cache_blocks, 10);
        assert_eq!(need.within(Some(0)).cache_blocks, 4);
        assert_eq!(need.least().total(), 160);
        assert_eq!(need.within(Some(320)).to_string(), "weights 1 MiB, KV 1 MiB = 320 tokens, scratch 1 MiB");
        assert_eq!(grouped(1_026_214), "1,026,214");
        assert_eq!(grouped(100), "100");
    }
}
