//! The queue under a virtual clock.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn limits(max_delay: u64) -> Limits {
    Limits { max_rows: 8, max_bytes: 1000, max_delay: ms(max_delay), queue_rows: 20, queue_bytes: 10_000 }
}

fn push(queue: &mut Queue<u32>, item: u32, rows: usize, key: &[usize], now: u64) -> Ticket {
    queue.push(item, rows, 10, Some(key.to_vec()), ms(now), ms(now + 100)).unwrap()
}

fn take(queue: &mut Queue<u32>, now: u64) -> (Vec<u32>, Vec<u32>) {
    let mut expired = Vec::new();
    match queue.take(ms(now), &mut expired) {
        Take::Batch(batch) => {
            assert_eq!(batch.rows, batch.entries.iter().map(|e| e.rows).sum::<usize>());
            (batch.entries.into_iter().map(|e| e.item).collect(), expired)
        }
        _ => (Vec::new(), expired),
    }
}

#[test]
fn an_idle_worker_never_waits() {
    let mut queue = Queue::new(limits(0));
    assert!(matches!(queue.take(ms(0), &mut Vec::new()), Take::Empty));
    push(&mut queue, 1, 1, &[], 0);
    assert_eq!(take(&mut queue, 0).0, [1]);
}

#[test]
fn what_came_while_it_was_busy_goes_together_up_to_the_cap() {
    let mut queue = Queue::new(limits(0));
    for item in 0..10 {
        push(&mut queue, item, 1, &[], 0);
    }
    assert_eq!(take(&mut queue, 5).0, [0, 1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(take(&mut queue, 5).0, [8, 9]);
    assert_eq!(queue.rows(), 0);
}

#[test]
fn order_is_kept_when_a_large_one_does_not_fit() {
    let mut queue = Queue::new(limits(0));
    for (item, rows) in [(0, 3), (1, 6), (2, 1), (3, 9), (4, 1)] {
        push(&mut queue, item, rows, &[], 0);
    }
    assert_eq!(take(&mut queue, 0).0, [0]);
    assert_eq!(take(&mut queue, 0).0, [1, 2]);
    assert_eq!(take(&mut queue, 0).0, [3], "more rows than a batch holds go alone");
    assert_eq!(take(&mut queue, 0).0, [4]);
}

#[test]
fn only_equal_shapes_are_merged_and_none_starves() {
    let mut queue = Queue::new(limits(0));
    for (item, key) in [(0, 5), (1, 7), (2, 5), (3, 7)] {
        push(&mut queue, item, 1, &[key], 0);
    }
    queue.push(4, 1, 10, None, ms(0), ms(100)).unwrap();
    queue.push(5, 1, 10, None, ms(0), ms(100)).unwrap();
    assert_eq!(take(&mut queue, 0).0, [0, 2]);
    assert_eq!(take(&mut queue, 0).0, [1, 3]);
    assert_eq!(take(&mut queue, 0).0, [4]);
    assert_eq!(take(&mut queue, 0).0, [5]);
}

#[test]
fn bytes_cap_a_batch() {
    let mut queue = Queue::new(limits(0));
    for item in 0..3 {
        queue.push(item, 1, 400, Some(vec![]), ms(0), ms(9)).unwrap();
    }
    assert_eq!(take(&mut queue, 0).0, [0, 1]);
    assert_eq!(take(&mut queue, 0).0, [2]);
}

#[test]
fn a_delay_is_kept_unless_the_batch_is_full_or_a_deadline_comes() {
    let mut queue = Queue::new(limits(10));
    push(&mut queue, 0, 1, &[], 5);
    assert!(matches!(queue.take(ms(5), &mut Vec::new()), Take::Wait(at) if at == ms(15)));
    push(&mut queue, 1, 1, &[], 9);
    assert_eq!(take(&mut queue, 15).0, [0, 1]);
    push(&mut queue, 2, 8, &[], 20);
    assert_eq!(take(&mut queue, 20).0, [2], "a full batch does not wait");
    queue.push(3, 1, 10, Some(vec![]), ms(30), ms(33)).unwrap();
    assert!(matches!(queue.take(ms(30), &mut Vec::new()), Take::Wait(at) if at == ms(33)));
    queue.push(4, 1, 10, None, ms(30), ms(90)).unwrap();
    assert_eq!(take(&mut queue, 33), (vec![4], vec![3]), "what is not merged does not wait");
}

#[test]
fn expired_entries_never_reach_a_worker() {
    let mut queue = Queue::new(limits(0));
    for (item, deadline) in [(0, 10), (1, 50), (2, 10), (3, 50)] {
        queue.push(item, 1, 10, Some(vec![]), ms(0), ms(deadline)).unwrap();
    }
    assert_eq!(take(&mut queue, 10), (vec![1, 3], vec![0, 2]));
}

#[test]
fn a_cancelled_entry_frees_its_rows() {
    let mut queue = Queue::new(limits(0));
    let tickets: Vec<_> = (0..4).map(|i| push(&mut queue, i, 5, &[], 0)).collect();
    assert_eq!(
        queue.push(9, 1, 10, Some(vec![]), ms(0), ms(1)),
        Err(Full { waiting: 20, rows: 1, limit: 20 })
    );
    assert_eq!(queue.cancel(tickets[2]), Some(2));
    assert_eq!(queue.cancel(tickets[2]), None);
    push(&mut queue, 9, 5, &[], 0);
    assert_eq!(take(&mut queue, 0).0, [0]);
    assert_eq!(queue.cancel(tickets[0]), None, "it is with the worker");
    assert_eq!(queue.drain(), [1, 3, 9]);
    assert_eq!((queue.rows(), queue.len()), (0, 0));
}

#[test]
fn an_empty_queue_takes_one_request_of_any_size() {
    let mut queue = Queue::new(limits(0));
    push(&mut queue, 0, 500, &[], 0);
    assert!(queue.push(1, 1, 1, None, ms(0), ms(1)).is_err());
    assert_eq!(take(&mut queue, 0).0, [0]);
}

proptest! {
    /// Every request leaves exactly once, in order within its key, and no batch breaks a limit.
    #[test]
    fn nothing_is_lost(
        requests in proptest::collection::vec((1..12_usize, 0..3_usize, 1..40_u64, any::<bool>()), 1..60),
        delay in 0..20_u64,
    ) {
        let mut queue = Queue::new(Limits { queue_rows: usize::MAX, queue_bytes: usize::MAX, ..limits(delay) });
        let mut left = Vec::new();
        let (mut sent, mut cancelled, mut expired) = (Vec::new(), Vec::new(), Vec::new());
        for (now, (rows, key, lifetime, cancel)) in requests.iter().enumerate() {
            let arrived = ms(now as u64);
            let key = Some(vec![*key]);
            let ticket = queue.push(now, *rows, 10, key, arrived, arrived + ms(*lifetime)).unwrap();
            left.push(now);
            if *cancel {
                cancelled.extend(queue.cancel(ticket));
            }
            if now % 3 == 0 && let Take::Batch(batch) = queue.take(arrived, &mut expired) {
                sent.push(batch);
            }
        }
        let late = ms(1000);
        while let Take::Batch(batch) = queue.take(late, &mut expired) {
            sent.push(batch);
        }
        for batch in &sent {
            prop_assert!(batch.rows <= 8 || batch.entries.len() == 1);
            prop_assert!(batch.entries.iter().all(|e| e.key == batch.entries[0].key));
            prop_assert!(batch.entries.is_sorted_by_key(|e| e.ticket));
        }
        let mut all: Vec<_> = sent.iter().flat_map(|b| b.entries.iter().map(|e| e.item)).collect();
        all.extend(cancelled);
        all.extend(expired);
        all.sort_unstable();
        prop_assert_eq!(all, left);
        prop_assert_eq!(queue.rows(), 0);
    }
}
