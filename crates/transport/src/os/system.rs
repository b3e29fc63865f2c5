//! What the machine has.

use std::fs;
use std::sync::OnceLock;

/// Whether two threads can run at once: only then is it worth spinning for another process.
pub fn has_several_cores() -> bool {
    static SEVERAL: OnceLock<bool> = OnceLock::new();
    *SEVERAL.get_or_init(|| std::thread::available_parallelism().is_ok_and(|cores| cores.get() > 1))
}

/// No honest process shares more at once than the machine has. A hostile one could use up the address space.
pub fn largest_useful_mapping() -> u64 {
    const UNKNOWN: u64 = 1 << 36;
    static TOTAL: OnceLock<u64> = OnceLock::new();
    *TOTAL.get_or_init(|| machine().map_or(UNKNOWN, |memory| 2 * memory.total))
}

/// Memory in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// All there is, for this process's control group.
    pub total: u64,
    /// What can be had without swapping anything out.
    pub available: u64,
}

/// The machine's memory or the control group's limit, whichever is tighter; None where the kernel does not
/// say.
pub fn memory() -> Option<Memory> {
    let mut memory = machine()?;
    let number =
        |path: String| -> Option<u64> { fs::read_to_string(path).ok()?.trim().parse().ok() };
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mut group = groups
        .lines()
        .find_map(|line| line.strip_prefix("0::"))
        .unwrap_or("/")
        .trim_end_matches('/');
    // A limit of any group above holds as well.
    loop {
        let file = |name: &str| format!("/sys/fs/cgroup{group}/{name}");
        if let (Some(limit), Some(used)) =
            (number(file("memory.max")), number(file("memory.current")))
        {
            // Cached files count as used, and go when memory is short.
            let cached = fs::read_to_string(file("memory.stat"))
                .ok()
                .and_then(|stat| {
                    stat.lines()
                        .find_map(|line| line.strip_prefix("inactive_file ")?.parse().ok())
                })
                .unwrap_or(0);
            memory.total = memory.total.min(limit);
            memory.available = memory.available.min(limit.saturating_sub(used) + cached);
        }
        match group.rfind('/') {
            Some(parent) => group = &group[..parent],
            None => return Some(memory),
        }
    }
}

fn machine() -> Option<Memory> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let field = |name: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        let kibibytes: u64 = line
            .trim_start_matches(':')
            .trim()
            .strip_suffix("kB")?
            .trim()
            .parse()
            .ok()?;
        Some(kibibytes * 1024)
    };
    Some(Memory {
        total: field("MemTotal")?,
        available: field("MemAvailable")?,
    })
}
