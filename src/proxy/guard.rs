//! A panic is a fault of ours, and of one request: it ends that one alone.
//!
//! What a request has borrowed of its worker is given back as the stack unwinds, so that the others go on.
//! The program's panic hook has said where it was and counted it by the time it comes here.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::Poll;

use super::failure::{Failure, FailureKind};

/// Waits for `future`, or for it to panic.
pub async fn guarded<F: Future + Unpin>(mut future: F) -> Result<F::Output, Failure> {
    poll_fn(|cx| match caught(|| Pin::new(&mut future).poll(cx)) {
        Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
        Ok(Poll::Pending) => Poll::Pending,
        // It is not polled again.
        Err(failure) => Poll::Ready(Err(failure)),
    })
    .await
}

/// Calls `function`.
#[inline]
pub fn caught<T>(function: impl FnOnce() -> T) -> Result<T, Failure> {
    catch_unwind(AssertUnwindSafe(function))
        .map_err(|_| Failure::new(FailureKind::Panicked, "a fault of Reeve: the log says where"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_a_failure_and_nothing_else_is() {
        assert_eq!(guarded(Box::pin(async { 7 })).await.unwrap(), 7);
        let panicking = Box::pin(async {
            tokio::task::yield_now().await;
            assert!(std::hint::black_box(false), "meant");
        });
        assert_eq!(guarded(panicking).await.unwrap_err().kind, FailureKind::Panicked);
        assert_eq!(caught(|| 7).unwrap(), 7);
    }
}
