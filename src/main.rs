//! Hands the command line to `app`.

/// See docs/decisions/0009.
#[global_allocator]
static ALLOCATOR: reeve::sys::heap::Heap = reeve::sys::heap::Heap;

fn main() -> std::process::ExitCode {
    reeve::app::main()
}
