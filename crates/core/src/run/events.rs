//! Delivery of a run's events to its observers, the log and the progress line.

use std::collections::VecDeque;

use indexmap::IndexMap;

use crate::run::history::{History, StepRecord};
use crate::run::observer::{ChangedMask, EvaluationEvent, MasksEvent, RunObserver, StepEvent};
use crate::run::progress_line::ProgressLine;
use crate::simulate::attach::Spaces;
use crate::simulate::mask::Mask;
use crate::target::{Target, TargetId};

/// What a run tells, and to whom.
///
/// The history has the steps and evaluations. What belongs to a step waits until its losses are read.
pub(crate) struct Events {
    pub(crate) observers: Vec<Box<dyn RunObserver>>,
    /// Drawn while a run of `compress` trains.
    pub(crate) line: Option<ProgressLine>,
    /// Whether such a run draws a line at all.
    pub(crate) has_line: bool,
    /// The masks that observers know.
    masks: IndexMap<TargetId, Mask>,
    waiting: VecDeque<MasksEvent>,
    /// Steps and evaluations of the history that were delivered.
    steps: usize,
    evaluations: usize,
}

impl Default for Events {
    fn default() -> Self {
        Self {
            observers: Vec::new(),
            line: None,
            has_line: true,
            masks: IndexMap::new(),
            waiting: VecDeque::new(),
            steps: 0,
            evaluations: 0,
        }
    }
}

impl Events {
    /// Counts everything up to here as delivered, in a run that goes on elsewhere.
    pub(crate) fn resume(&mut self, history: &History, spaces: &Spaces) {
        self.masks = masks(spaces);
        self.waiting.clear();
        self.steps = history.steps.len();
        self.evaluations = history.evaluations.len();
    }

    /// Compares the masks with those of the last call.
    pub(crate) fn watch_masks(&mut self, step: usize, total_steps: usize, spaces: &Spaces) {
        let now = masks(spaces);
        let gone = |(target, mask): (&TargetId, &Mask)| {
            (!now.contains_key(target)).then(|| changed(target, 0, mask))
        };
        let new = |(target, mask): (&TargetId, &Mask)| {
            let is_same = self.masks.get(target).is_some_and(|old| is_same(old, mask));
            (!is_same).then(|| changed(target, mask.removed(), mask))
        };
        let gone = self.masks.iter().filter_map(gone);
        let changed: Vec<ChangedMask> = now.iter().filter_map(new).chain(gone).collect();
        self.masks = now;
        if !changed.is_empty() {
            self.waiting.push_back(MasksEvent {
                step,
                total_steps,
                changed,
                sparsity: sparsity(spaces),
            });
        }
    }

    /// Delivers what the history holds by now, and what belongs to its steps.
    pub(crate) fn deliver(&mut self, history: &History, total_steps: usize) {
        while let Some(&record) = history.steps.get(self.steps) {
            self.deliver_until(record.step.saturating_sub(1), history, total_steps);
            self.steps += 1;
            self.step(StepEvent {
                record,
                total_steps,
            });
        }
        let last = history.steps.last().map_or(0, |record| record.step);
        self.deliver_until(last, history, total_steps);
    }

    /// Delivers masks and evaluations of the steps up to `last`.
    fn deliver_until(&mut self, last: usize, history: &History, total_steps: usize) {
        loop {
            let evaluation = history.evaluations.get(self.evaluations);
            let evaluation = evaluation.filter(|(step, _)| *step <= last);
            let until = evaluation.map_or(last, |(step, _)| *step);
            if let Some(event) = self.waiting.pop_front_if(|event| event.step <= until) {
                self.masks(&event);
            } else if let Some(&(step, metric)) = evaluation {
                self.evaluations += 1;
                self.evaluation(EvaluationEvent {
                    step,
                    total_steps,
                    metric,
                });
            } else {
                return;
            }
        }
    }

    fn step(&mut self, event: StepEvent) {
        let StepRecord {
            step,
            loss,
            task_loss,
            learning_rate,
            sparsity,
        } = event.record;
        log::debug!(
            "step {step} of {}: loss {loss}, task loss {task_loss}, learning rate {learning_rate}, \
             sparsity {sparsity:.4}",
            event.total_steps
        );
        self.each(|observer| observer.on_step(&event));
    }

    fn masks(&mut self, event: &MasksEvent) {
        log::info!(
            "step {} of {}: {} masks have changed, sparsity {:.4}",
            event.step,
            event.total_steps,
            event.changed.len(),
            event.sparsity
        );
        self.each(|observer| observer.on_masks(event));
    }

    fn evaluation(&mut self, event: EvaluationEvent) {
        log::info!(
            "step {} of {}: metric {}",
            event.step,
            event.total_steps,
            event.metric
        );
        self.each(|observer| observer.on_evaluation(&event));
    }

    fn each(&mut self, mut tell: impl FnMut(&mut dyn RunObserver)) {
        if let Some(line) = &mut self.line {
            tell(line);
        }
        for observer in &mut self.observers {
            tell(observer.as_mut());
        }
    }
}

/// The masks at hand; clones share their values with the states.
fn masks(spaces: &Spaces) -> IndexMap<TargetId, Mask> {
    let masks = spaces.iter();
    let masks = masks.filter_map(|(id, space)| Some((id.clone(), space.mask()?)));
    masks.collect()
}

/// Values that are shared need not be compared, and none is expanded for it.
fn is_same(a: &Mask, b: &Mask) -> bool {
    let ((own, extent), (other, other_extent)) = (a.compact(), b.compact());
    let are_equal = match extent == other_extent {
        true => std::ptr::eq(own, other) || own == other,
        false => a.values() == b.values(),
    };
    a.method() == b.method() && a.shape() == b.shape() && are_equal
}

fn changed(target: &TargetId, removed: usize, mask: &Mask) -> ChangedMask {
    ChangedMask {
        target: target.clone(),
        removed,
        elements: mask.elements(),
    }
}

/// Fraction of the masked parameters' elements that is removed.
pub(crate) fn sparsity(spaces: &Spaces) -> f64 {
    let params = spaces.values();
    let params = params.filter(|space| matches!(space.id().target, Target::Param(_)));
    let (removed, all) = params
        .filter_map(|space| space.removed())
        .fold((0, 0), |(removed, all), (r, a)| (removed + r, all + a));
    match all {
        0 => 0.0,
        all => removed as f64 / all as f64,
    }
}

#[cfg(test)]
mod tests;
