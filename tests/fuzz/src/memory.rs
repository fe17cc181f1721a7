//! Counts the memory that this thread takes, so that a decoder that allocates what a length says
//! is found although no such memory is ever touched.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// A value takes more memory than its bytes: of JSON, three bytes can make a whole list's element.
/// Values are held several times over, as bytes and as what they mean.
pub(crate) const BYTES_PER_INPUT_BYTE: usize = 4096;

thread_local! {
    static NOW: Cell<usize> = const { Cell::new(0) };
    static MOST: Cell<usize> = const { Cell::new(0) };
}

/// The most memory held at one time during a call, less what was held before it.
pub(crate) fn most_during(call: impl FnOnce()) -> usize {
    let before = NOW.get();
    MOST.set(before);
    call();
    MOST.get().saturating_sub(before)
}

fn grown(bytes: usize) {
    let now = NOW.get().saturating_add(bytes);
    NOW.set(now);
    MOST.set(MOST.get().max(now));
}

fn shrunk(bytes: usize) {
    NOW.set(NOW.get().saturating_sub(bytes));
}

/// The system's allocator, counted.
pub(crate) struct Counting;

#[expect(unsafe_code, reason = "an allocator cannot be written without")]
// SAFETY: every call is the system's allocator's with the same arguments; counting does not
// allocate, as the counters need neither initialisation nor a destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grown(layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        shrunk(layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        grown(layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        grown(size);
        shrunk(layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(at, layout, size) }
    }
}
