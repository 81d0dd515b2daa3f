//! Runs programs once, on data from the host.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use libbpf_sys as sys;
use preverify_protocol::{TestRunReply, TestRunRequest};

use crate::descriptors::program_info;
use crate::error::AgentError;

/// The most that may come back: the kernel takes and gives less.
const OUTPUT_LIMIT: u32 = 1 << 20;

/// Runs a program with `BPF_PROG_TEST_RUN`.
pub fn test_run(
    program: BorrowedFd<'_>,
    request: &TestRunRequest,
) -> Result<TestRunReply, AgentError> {
    if request.data_out_size > OUTPUT_LIMIT {
        return Err(AgentError::TooMuchOutput {
            asked: request.data_out_size,
            limit: OUTPUT_LIMIT,
        });
    }
    let prog_type = program_info(program)
        .map_err(AgentError::system("ask about a program"))?
        .type_;
    let mut data_out = vec![0_u8; request.data_out_size as usize];
    // The kernel writes a syscall program's context back to where it came from.
    let mut context = request.context_in.clone().unwrap_or_default();
    let mut context_out = match prog_type {
        sys::BPF_PROG_TYPE_SYSCALL | sys::BPF_PROG_TYPE_RAW_TRACEPOINT => Vec::new(),
        _ => vec![0; context.len()],
    };
    let data_in = request.data_in.as_deref().unwrap_or_default();
    let mut options = sys::bpf_test_run_opts {
        sz: size_of::<sys::bpf_test_run_opts>() as sys::size_t,
        data_in: or_null(data_in.as_ptr(), data_in.len()).cast(),
        data_out: or_null_mut(&mut data_out).cast(),
        data_size_in: length(data_in)?,
        data_size_out: request.data_out_size,
        ctx_in: or_null_mut(&mut context).cast_const().cast(),
        ctx_out: or_null_mut(&mut context_out).cast(),
        ctx_size_in: length(&context)?,
        ctx_size_out: length(&context_out)?,
        // Some types take no count, and zero means once to all.
        repeat: match request.repeat {
            0 | 1 => 0,
            count => i32::try_from(count).unwrap_or(i32::MAX),
        },
        flags: request.flags,
        ..Default::default()
    };
    // SAFETY: every pointer is null or to as many bytes as its size says, and outlives the call.
    let result = unsafe { sys::bpf_prog_test_run_opts(program.as_raw_fd(), &mut options) };
    data_out.truncate(options.data_size_out as usize);
    if prog_type == sys::BPF_PROG_TYPE_SYSCALL {
        context_out = context;
    } else {
        context_out.truncate(options.ctx_size_out as usize);
    }
    Ok(TestRunReply {
        errno: result.min(0).saturating_neg(),
        return_value: options.retval,
        data_out,
        context_out,
        duration_ns: options.duration,
    })
}

fn or_null(bytes: *const u8, count: usize) -> *const u8 {
    match count {
        0 => ptr::null(),
        _ => bytes,
    }
}

fn or_null_mut(bytes: &mut [u8]) -> *mut u8 {
    match bytes {
        [] => ptr::null_mut(),
        bytes => bytes.as_mut_ptr(),
    }
}

fn length(bytes: &[u8]) -> Result<u32, AgentError> {
    u32::try_from(bytes.len())
        .map_err(io::Error::other)
        .map_err(AgentError::system("run a program"))
}
