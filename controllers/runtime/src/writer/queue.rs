//! Which job runs next.

use std::collections::{HashMap, HashSet, VecDeque};

use crate::object::ObjectRef;

use super::{Job, Lane};

/// Jobs that wait, and objects that are being written.
#[derive(Debug, Default)]
pub(super) struct Queue {
    jobs: HashMap<ObjectRef, Job>,
    /// Order of start; an entry whose job has gone or moved to another lane is skipped.
    order: [VecDeque<ObjectRef>; Lane::ALL.len()],
    running: HashMap<ObjectRef, Lane>,
    busy: [usize; Lane::ALL.len()],
    /// Objects whose turn came while they were being written.
    passed: HashSet<ObjectRef>,
}

impl Queue {
    /// Adds a job; it replaces one of the same object that waits, in the more important of their lanes.
    pub(super) fn push(&mut self, mut job: Job) {
        let object = job.object.clone();
        let waiting = self.jobs.get(&object).map(|old| old.lane);
        job.lane = waiting.map_or(job.lane, |lane| lane.min(job.lane));
        if waiting != Some(job.lane) {
            self.order[job.lane as usize].push_back(object.clone());
        }
        self.jobs.insert(object, job);
    }

    /// The next job that may start now.
    pub(super) fn start(&mut self) -> Option<Job> {
        Lane::ALL.into_iter().find_map(|lane| self.start_in(lane))
    }

    fn start_in(&mut self, lane: Lane) -> Option<Job> {
        while self.busy[lane as usize] < lane.width() {
            let object = self.order[lane as usize].pop_front()?;
            if self.jobs.get(&object).is_none_or(|job| job.lane != lane) {
                continue;
            }
            if self.running.contains_key(&object) {
                self.passed.insert(object);
                continue;
            }
            self.busy[lane as usize] += 1;
            self.running.insert(object.clone(), lane);
            return self.jobs.remove(&object);
        }
        None
    }

    /// Says that the job of `object` ended.
    pub(super) fn finish(&mut self, object: &ObjectRef) {
        if let Some(lane) = self.running.remove(object) {
            self.busy[lane as usize] -= 1;
        }
        if self.passed.remove(object)
            && let Some(job) = self.jobs.get(object)
        {
            self.order[job.lane as usize].push_front(object.clone());
        }
    }

    /// Jobs that wait or run.
    pub(super) fn len(&self) -> usize {
        self.jobs.len() + self.running.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::Resource;

    const RESOURCE: Resource = Resource { group: "", version: "v1", kind: "Thing", plural: "things" };

    fn mk_job(name: &str, lane: Lane, content: &str) -> Job {
        let request = super::super::Request::create(&content).unwrap();
        Job { object: ObjectRef::cluster(RESOURCE, name), lane, requests: vec![request] }
    }

    /// Name and content of the next job.
    fn start(queue: &mut Queue) -> Option<(String, String)> {
        let job = queue.start()?;
        let content = serde_json::from_slice(&job.requests[0].body).unwrap();
        Some((job.object.key.name, content))
    }

    fn some(name: &str, content: &str) -> Option<(String, String)> {
        Some((name.into(), content.into()))
    }

    #[test]
    fn the_more_important_lane_goes_first_and_each_in_its_order() {
        let mut queue = Queue::default();
        for (name, lane) in [("a", Lane::Lazy), ("b", Lane::Normal), ("c", Lane::Urgent), ("d", Lane::Urgent)]
        {
            queue.push(mk_job(name, lane, "1"));
        }
        let order: Vec<_> = std::iter::from_fn(|| start(&mut queue)).map(|(name, _)| name).collect();
        assert_eq!(order, ["c", "d", "b", "a"]);
    }

    #[test]
    fn a_waiting_job_is_replaced_and_runs_once() {
        let mut queue = Queue::default();
        queue.push(mk_job("a", Lane::Urgent, "old"));
        queue.push(mk_job("b", Lane::Urgent, "1"));
        queue.push(mk_job("a", Lane::Urgent, "new"));
        assert_eq!(start(&mut queue), some("a", "new"));
        assert_eq!(start(&mut queue), some("b", "1"));
        assert_eq!(start(&mut queue), None);
    }

    #[test]
    fn a_replacement_can_only_be_more_important() {
        let mut queue = Queue::default();
        queue.push(mk_job("a", Lane::Lazy, "old"));
        queue.push(mk_job("b", Lane::Normal, "1"));
        queue.push(mk_job("a", Lane::Urgent, "new"));
        queue.push(mk_job("a", Lane::Lazy, "newest"));
        assert_eq!(start(&mut queue), some("a", "newest"));
        assert_eq!(start(&mut queue), some("b", "1"));
        assert_eq!(start(&mut queue), None);
    }

    #[test]
    fn an_object_is_never_written_twice_at_once() {
        let mut queue = Queue::default();
        queue.push(mk_job("a", Lane::Urgent, "1"));
        assert_eq!(start(&mut queue), some("a", "1"));
        queue.push(mk_job("a", Lane::Urgent, "2"));
        assert_eq!(start(&mut queue), None);
        queue.push(mk_job("a", Lane::Urgent, "3"));
        assert_eq!(start(&mut queue), None);
        assert_eq!(queue.len(), 2);
        queue.finish(&ObjectRef::cluster(RESOURCE, "a"));
        assert_eq!(start(&mut queue), some("a", "3"));
        queue.finish(&ObjectRef::cluster(RESOURCE, "a"));
        assert_eq!((start(&mut queue), queue.len()), (None, 0));
    }

    #[test]
    fn a_full_lane_does_not_hold_up_another_one() {
        let mut queue = Queue::default();
        for index in 0..Lane::Urgent.width() + 1 {
            queue.push(mk_job(&format!("u{index}"), Lane::Urgent, "1"));
        }
        queue.push(mk_job("lazy", Lane::Lazy, "1"));
        for _ in 0..Lane::Urgent.width() {
            assert!(start(&mut queue).unwrap().0.starts_with('u'));
        }
        assert_eq!(start(&mut queue), some("lazy", "1"));
        assert_eq!(start(&mut queue), None);
        queue.finish(&ObjectRef::cluster(RESOURCE, "u0"));
        assert_eq!(start(&mut queue), some("u16", "1"));
    }
}
