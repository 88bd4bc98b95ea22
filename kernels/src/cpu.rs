//! The processor an operation runs on: a SIMD level and a pool of threads. Neither changes a result.

use std::sync::OnceLock;

use crate::{Level, Pool};

/// A checked SIMD level and the threads to use.
#[derive(Debug, Clone, Copy)]
pub struct Cpu {
    level: Level,
    pool: &'static Pool,
}

impl Cpu {
    /// This machine: its best level and one pool for the whole process.
    pub fn host() -> Self {
        static HOST: OnceLock<Cpu> = OnceLock::new();
        *HOST.get_or_init(|| Self { level: Level::detect(), pool: Pool::global() })
    }

    /// A chosen level and pool; `None` if this machine lacks the level.
    pub fn with(level: Level, pool: &'static Pool) -> Option<Self> {
        level.is_supported().then_some(Self { level, pool })
    }

    /// The instructions in use; this machine has them.
    pub fn level(self) -> Level {
        self.level
    }

    /// The threads in use.
    pub fn pool(self) -> &'static Pool {
        self.pool
    }
}
