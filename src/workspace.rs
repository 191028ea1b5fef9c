//! Scratch, owned by the caller: how much a plan needs, and the memory itself.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError, RwLock};

use tile25_kernels::buf::Buf;
use tile25_kernels::mat::Claims;

/// What a schedule needs. Plans with several schedules, run one after the other, share the memory of the largest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scratch {
    /// Bytes of each packed panel in flight.
    pub(crate) panels: Vec<usize>,
    /// Bytes and segments of each partial sum in flight.
    pub(crate) partials: Vec<(usize, usize)>,
    /// Bytes of the sums of each tile of C in flight, where they lie apart from C.
    pub(crate) sums: Vec<usize>,
    /// Tiles of C.
    pub(crate) tiles: usize,
    /// Tickets.
    pub(crate) tickets: usize,
    /// Steps.
    pub(crate) steps: usize,
}

impl Scratch {
    /// The least scratch that serves both.
    pub(crate) fn merge(&mut self, other: &Scratch) {
        let both = |a: usize, b: usize| a.max(b);
        for (own, other) in [(&mut self.panels, &other.panels), (&mut self.sums, &other.sums)] {
            for (i, &bytes) in other.iter().enumerate() {
                match own.get_mut(i) {
                    Some(own) => *own = both(*own, bytes),
                    None => own.push(bytes),
                }
            }
        }
        for (i, &(bytes, segments)) in other.partials.iter().enumerate() {
            match self.partials.get_mut(i) {
                Some(own) => *own = (both(own.0, bytes), both(own.1, segments)),
                None => self.partials.push((bytes, segments)),
            }
        }
        self.tiles = both(self.tiles, other.tiles);
        self.tickets = both(self.tickets, other.tickets);
        self.steps = both(self.steps, other.steps);
    }

    pub(crate) fn bytes(&self) -> usize {
        let partials = self.partials.iter().map(|partial| &partial.0);
        self.panels.iter().chain(partials).chain(&self.sums).sum()
    }

    /// Whether each piece is there and as large. Allocates nothing, and calls nothing: small products notice.
    fn serves(&self, needed: &Scratch) -> bool {
        fn all<T: Copy>(own: &[T], needed: &[T], fits: impl Fn(T, T) -> bool) -> bool {
            own.len() >= needed.len() && own.iter().zip(needed).all(|(&own, &needed)| fits(own, needed))
        }
        let as_large = |own: usize, needed: usize| own >= needed;
        all(&self.panels, &needed.panels, as_large)
            && all(&self.sums, &needed.sums, as_large)
            && all(&self.partials, &needed.partials, |own, needed| own.0 >= needed.0 && own.1 >= needed.1)
            && [self.tiles, self.tickets, self.steps]
                .iter()
                .zip([needed.tiles, needed.tickets, needed.steps])
                .all(|(&own, needed)| own >= needed)
    }
}

/// What a run did. A plan of several parts, such as the gradient of a strided convolution, reports the sum over its parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Pairs of packed panels that the dot-product kernel of bf16 was to multiply, a segment each; 0 for other kernels.
    pub panel_pairs: u64,
    /// Those of them whose exponents sent them to the widening kernel, at half the speed and with the same bits.
    pub widened_pairs: u64,
}

/// Scratch of a plan. A run allocates nothing: all it needs is here. One run at a time uses it, so `run` takes it by `&mut`.
#[derive(Debug)]
pub struct Workspace {
    scratch: Scratch,
    pub(crate) panels: Vec<RwLock<Buf>>,
    pub(crate) partials: Vec<RwLock<Partial>>,
    pub(crate) sums: Vec<Mutex<Partial>>,
    pub(crate) claims: Claims,
    pub(crate) progress: Progress,
}

/// Sums that are not yet in C: of single segments until they are added in order, or of a whole tile until it is narrowed.
#[derive(Debug)]
pub(crate) struct Partial {
    pub(crate) buf: Buf,
    pub(crate) claims: Claims,
}

impl Workspace {
    pub(crate) fn new(scratch: Scratch) -> Self {
        let partials = scratch.partials.iter().map(|partial| partial.0);
        let sizes: Vec<usize> =
            scratch.panels.iter().copied().chain(partials).chain(scratch.sums.iter().copied()).collect();
        let mut bufs = Buf::carve(&sizes).into_iter();
        let panels = bufs.by_ref().take(scratch.panels.len()).map(RwLock::new).collect();
        let partial = |(buf, &(_, segments))| RwLock::new(Partial { buf, claims: Claims::new(segments) });
        let partials =
            bufs.by_ref().take(scratch.partials.len()).zip(&scratch.partials).map(partial).collect();
        let sum = |buf| Mutex::new(Partial { buf, claims: Claims::new(1) });
        Workspace {
            panels,
            partials,
            sums: bufs.map(sum).collect(),
            claims: Claims::new(scratch.tiles),
            progress: Progress::new(scratch.tickets, scratch.steps),
            scratch,
        }
    }

    /// Bytes of packed panels and sums: what a plan states as its bound.
    pub fn bytes(&self) -> usize {
        self.scratch.bytes()
    }

    /// What the last run that used this workspace did.
    pub fn report(&self) -> Report {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Report { panel_pairs: load(&self.progress.pairs), widened_pairs: load(&self.progress.widened) }
    }

    /// Whether the first panels are `slots` pairs of at least these sizes.
    pub(crate) fn has_panels(&self, slots: usize, bytes: [usize; 2]) -> bool {
        let panels = &self.scratch.panels;
        panels.len() >= 2 * slots
            && panels[..2 * slots].chunks_exact(2).all(|pair| pair[0] >= bytes[0] && pair[1] >= bytes[1])
    }

    /// Checks that the workspace serves `needed`.
    pub(crate) fn check(&self, op: &'static str, needed: &Scratch) -> Result<(), crate::Error> {
        if self.scratch.serves(needed) {
            return Ok(());
        }
        let text = |scratch: &Scratch| {
            format!(
                "{} bytes in {} panels and {} sums, {} tickets",
                scratch.bytes(),
                scratch.panels.len(),
                scratch.partials.len() + scratch.sums.len(),
                scratch.tickets
            )
        };
        Err(crate::Error::Workspace { op, got: text(&self.scratch), needed: text(needed) })
    }
}

/// How far a run has come. Threads draw tickets in order and wait only for earlier ones, so the earliest unfinished ticket can
/// always go on: no deadlock. A wait sleeps on a condition variable; it does not spin.
#[derive(Debug)]
pub(crate) struct Progress {
    next: AtomicUsize,
    done: Vec<AtomicBool>,
    step_left: Vec<AtomicU32>,
    failed: AtomicBool,
    waiting: AtomicUsize,
    pairs: AtomicU64,
    widened: AtomicU64,
    lock: Mutex<()>,
    changed: Condvar,
}

impl Progress {
    fn new(tickets: usize, steps: usize) -> Self {
        Progress {
            next: AtomicUsize::new(0),
            done: (0..tickets).map(|_| AtomicBool::new(false)).collect(),
            step_left: (0..steps).map(|_| AtomicU32::new(0)).collect(),
            failed: AtomicBool::new(false),
            waiting: AtomicUsize::new(0),
            pairs: AtomicU64::new(0),
            widened: AtomicU64::new(0),
            lock: Mutex::new(()),
            changed: Condvar::new(),
        }
    }

    /// Before a run: `work` is the number of tickets of each step that must finish before the step counts as done.
    pub(crate) fn reset(&mut self, work: &[u32], tickets: usize) {
        *self.next.get_mut() = 0;
        *self.failed.get_mut() = false;
        for done in &mut self.done[..tickets] {
            *done.get_mut() = false;
        }
        for (left, &work) in self.step_left.iter_mut().zip(work) {
            *left.get_mut() = work;
        }
    }

    /// Before the first part of a run.
    pub(crate) fn clear_report(&mut self) {
        *self.pairs.get_mut() = 0;
        *self.widened.get_mut() = 0;
    }

    /// So many pairs of panels were multiplied, of which so many widened.
    pub(crate) fn count(&self, pairs: usize, widened: usize) {
        self.pairs.fetch_add(pairs as u64, Ordering::Relaxed);
        self.widened.fetch_add(widened as u64, Ordering::Relaxed);
    }

    /// The next ticket.
    pub(crate) fn draw(&self) -> usize {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn is_done(&self, ticket: usize) -> bool {
        self.done[ticket].load(Ordering::SeqCst)
    }

    pub(crate) fn step_is_done(&self, step: usize) -> bool {
        self.step_left[step].load(Ordering::SeqCst) == 0
    }

    /// Marks a ticket, and its step where it is work of one.
    pub(crate) fn finish(&self, ticket: usize, step: Option<usize>) {
        self.done[ticket].store(true, Ordering::SeqCst);
        if let Some(step) = step {
            self.step_left[step].fetch_sub(1, Ordering::SeqCst);
        }
        self.wake();
    }

    /// A thread panicked: nobody shall wait for it.
    pub(crate) fn fail(&self) {
        self.failed.store(true, Ordering::SeqCst);
        self.wake();
    }

    fn wake(&self) {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            // Taking the lock orders this after a waiter's last look at its condition.
            drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner));
            self.changed.notify_all();
        }
    }

    /// Sleeps until `ready`; false if another thread failed.
    pub(crate) fn wait(&self, ready: impl Fn() -> bool) -> bool {
        if ready() {
            return true;
        }
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let mut guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let mut is_ready = ready();
        while !is_ready && !self.failed.load(Ordering::SeqCst) {
            guard = self.changed.wait(guard).unwrap_or_else(PoisonError::into_inner);
            is_ready = ready();
        }
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        is_ready
    }
}
