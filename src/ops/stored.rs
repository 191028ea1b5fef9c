//! Packed operands as data: what they share when serde writes and reads them (feature `serde`).

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use tile25_kernels::buf::Buf;

/// Moves with every change of how panels lie, which `tests/stored.rs` notices: panels of another version are refused.
const PANELS: u32 = 5;

/// How panels lie, before anything else of a packed operand.
#[derive(Serialize, Deserialize)]
pub(super) struct Lie {
    panels: u32,
    big_endian: bool,
}

impl Lie {
    /// In this version, on this machine.
    pub(super) fn here() -> Self {
        Lie { panels: PANELS, big_endian: cfg!(target_endian = "big") }
    }

    /// Whether they can be read here, in words.
    pub(super) fn check(&self) -> Result<(), String> {
        let Lie { panels, big_endian } = *self;
        if panels != PANELS {
            return Err(format!("panels of version {panels}, this tile25 reads version {PANELS}: pack anew"));
        }
        if big_endian != cfg!(target_endian = "big") {
            return Err("panels of a machine of other byte order: pack anew".to_string());
        }
        Ok(())
    }
}

/// Bytes of panels.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Bytes<'a>(#[serde(borrow, with = "serde_bytes")] pub(super) Cow<'a, [u8]>);

impl Bytes<'_> {
    /// An aligned copy.
    pub(super) fn to_buf(&self) -> Buf {
        let len = self.0.len();
        let mut buf = Buf::zeroed(len);
        buf.as_mut_slice::<u8>(len).copy_from_slice(&self.0);
        buf
    }
}
