//! What programs send to user space: ring buffers and perf buffers.

mod perf;
mod ring;

pub use perf::{PerfBuffer, PerfEvent};
pub use ring::RingBuffer;
