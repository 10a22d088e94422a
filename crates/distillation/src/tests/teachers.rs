//! Several teachers and caches.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::module::Module;
use burn_compress_core::{Budget, Error};

use super::*;
use crate::logits::soft_targets;
use crate::{
    AttentionConfig, AttentionDistiller, DistillConfig, DistillationError,
    DynamicLayerwiseDistiller, LogitsConfig, LogitsDistiller, Teacher, TeacherAggregation,
    TeacherCache, Teachers,
};

const FC: &str = r#"[{"op_names": ["fc"]}]"#;
const FIRST: &str = r#"[{"op_names": ["first"]}]"#;

fn teacher(width: usize, seed: u64) -> Teacher<Batch> {
    Teacher::of_logits(&net(width, seed), logits)
}

fn first_loss(teachers: impl Into<Teachers<Batch>>) -> f64 {
    let config = LogitsConfig::new().with_origin_loss_lambda(0.0);
    let chain = LogitsDistiller::from_teachers(chain(3), rules(FC), teachers, config);
    losses(&chain.unwrap().compress(Budget::steps(1)).unwrap())[0].0
}

#[test]
fn losses_of_teachers_are_averaged() {
    let (one, other) = (first_loss(teacher(5, 2)), first_loss(teacher(7, 3)));
    let both = Teachers::new([teacher(5, 2), teacher(7, 3).with_weight(3.0)]);
    assert!((first_loss(both) - (one + 3.0 * other) / 4.0).abs() < 1e-6);
}

#[test]
fn logits_of_teachers_are_averaged() {
    let both =
        Teachers::new([teacher(5, 2), teacher(7, 3)]).with_aggregation(TeacherAggregation::Outputs);
    let student = logits(&chain(3).unwrap_model().valid(), &batch(0));
    let [one, other] = [net(5, 2), net(7, 3)].map(|net| logits(&net.valid(), &batch(0)));
    let expected = soft_targets(student, (one + other) / 2.0, 4.0).into_scalar::<f32>();
    assert!((first_loss(both) - f64::from(expected)).abs() < 1e-5);
}

#[test]
fn hidden_states_of_teachers_are_averaged() {
    let loss = |teachers: Teachers<Batch>| {
        let config = DistillConfig::new(0.0);
        let chain =
            DynamicLayerwiseDistiller::from_teachers(chain(3), rules(FIRST), teachers, config);
        losses(&chain.unwrap().compress(Budget::steps(1)).unwrap())[0].0
    };
    let both = || [net(3, 2), net(3, 3)].map(|net| Teacher::new(&net, logits));
    let found = loss(Teachers::new(both()).with_aggregation(TeacherAggregation::Outputs));
    let state = |net: Net| net.valid().first.forward(batch(0).images);
    let mean = (state(net(3, 2)) + state(net(3, 3))) / 2.0;
    let student = state(chain(3).unwrap_model());
    let expected = (student - mean).square().mean().into_scalar::<f32>();
    assert!(
        (found - f64::from(expected)).abs() < 1e-6,
        "{found} {expected}"
    );
    let one = |at: usize| loss(Teachers::from(both().into_iter().nth(at).unwrap()));
    let averaged = loss(Teachers::new(both()));
    assert!((averaged - (one(0) + one(1)) / 2.0).abs() < 1e-6);
}

#[test]
fn links_lead_to_other_layers_of_other_teachers() {
    let loss = |teacher: Teacher<Batch>, rules: &str| {
        let config = AttentionConfig::new().with_origin_loss_lambda(0.0);
        let rules = super::rules(rules);
        let chain = AttentionDistiller::from_teachers(chain(3), &rules, teacher, config);
        losses(&chain.unwrap().compress(Budget::steps(1)).unwrap())[0].0
    };
    let renamed = loss(
        teacher(5, 2).with_layer("body", "first"),
        r#"[{"op_names": ["first"], "link": "body"}]"#,
    );
    assert_eq!(renamed, loss(teacher(5, 2), FIRST));
}

#[test]
fn two_links_may_lead_to_one_layer() {
    let both = r#"[{"op_names": ["first"], "link": ["body", "first"]}]"#;
    let loss = |teacher: Teacher<Batch>, rules: &str| {
        let config = AttentionConfig::new().with_origin_loss_lambda(0.0);
        let rules = super::rules(rules);
        let chain = AttentionDistiller::from_teachers(chain(3), &rules, teacher, config);
        losses(&chain.unwrap().compress(Budget::steps(1)).unwrap())[0].0
    };
    let twice = loss(teacher(5, 2).with_layer("body", "first"), both);
    assert_eq!(twice, loss(teacher(5, 2), FIRST));
}

/// A file of its own in the folder for temporary files, removed in the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let name = format!("burn-compress-{}-{name}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }

    fn cache(&self) -> TeacherCache<Batch> {
        TeacherCache::open(&self.0, |batch: &Batch| batch.keys.clone()).unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A run of seven steps over three batches with a hidden state and, alone, with logits; how often
/// the teacher was asked, the losses and the weights in the end.
fn run(cache: Option<TeacherCache<Batch>>) -> (usize, Vec<(f64, f64)>, Vec<u32>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = asked.clone();
    let mut teacher = Teacher::of_logits(&net(3, 2), move |net: &Net, batch: &Batch| {
        counter.fetch_add(1, Ordering::Relaxed);
        logits(net, batch)
    });
    if let Some(cache) = cache {
        teacher = teacher.with_cache(cache);
    }
    let config = DistillConfig::new(0.5);
    let chain = DynamicLayerwiseDistiller::from_teachers(chain(3), rules(FIRST), teacher, config);
    let compressed = chain.unwrap().compress(Budget::steps(7)).unwrap();
    let losses = losses(&compressed);
    let weights = bits(&compressed.unwrap_model());
    (asked.load(Ordering::Relaxed), losses, weights)
}

#[test]
fn a_second_run_asks_the_teacher_once() {
    let scratch = Scratch::new("second-run");
    let plain = run(None);
    assert_eq!(plain.0, 7);
    let cache = scratch.cache();
    assert!(cache.is_empty());
    let filling = run(Some(cache));
    // For three batches, and once more to compare what the cache answers.
    assert_eq!(filling.0, 4);
    let cache = scratch.cache();
    assert_eq!(cache.len(), 3 * SAMPLES);
    let reading = run(Some(cache));
    assert_eq!(reading.0, 1);
    assert_eq!((&filling.1, &filling.2), (&plain.1, &plain.2));
    assert_eq!((&reading.1, &reading.2), (&plain.1, &plain.2));
}

#[test]
fn a_checkpoint_saves_the_cache() {
    let (scratch, checkpoint) = (Scratch::new("stopped"), Scratch::new("checkpoint"));
    let teacher = teacher(3, 2).with_cache(scratch.cache());
    let config = LogitsConfig::new();
    let chain = LogitsDistiller::from_teachers(chain(3), rules(FC), teacher, config);
    let mut chain = chain.unwrap();
    chain.advance(&Budget::steps(7), Some(2)).unwrap();
    assert!(scratch.cache().is_empty());
    chain.save_checkpoint(&checkpoint.0).unwrap();
    assert_eq!(scratch.cache().len(), 2 * SAMPLES);
}

#[test]
fn logits_are_cached() {
    let scratch = Scratch::new("logits");
    let run = |teacher: Teacher<Batch>| {
        let chain =
            LogitsDistiller::from_teachers(chain(3), rules(FC), teacher, LogitsConfig::new());
        losses(&chain.unwrap().compress(Budget::steps(4)).unwrap())
    };
    let plain = run(teacher(5, 2));
    assert_eq!(run(teacher(5, 2).with_cache(scratch.cache())), plain);
    assert_eq!(run(teacher(5, 2).with_cache(scratch.cache())), plain);
}

#[test]
fn a_cache_that_another_predict_filled_is_refused() {
    let scratch = Scratch::new("predict");
    let run = |teacher: Teacher<Batch>| {
        let teacher = teacher.with_cache(scratch.cache());
        let config = LogitsConfig::new();
        let chain = LogitsDistiller::from_teachers(chain(3), rules(FC), teacher, config);
        chain.unwrap().compress(Budget::steps(4))
    };
    run(teacher(5, 2)).unwrap();
    // Of the same weights, a little more than 1 % apart.
    let louder = |net: &Net, batch: &Batch| logits(net, batch) * 1.02;
    let Err(Error::Algorithm { source, .. }) = run(Teacher::of_logits(&net(5, 2), louder)) else {
        panic!("stale answers were taken");
    };
    let source = source.downcast_ref::<DistillationError>();
    let Some(DistillationError::CachedAnswer { state, key: 0, .. }) = source else {
        panic!("{source:?}");
    };
    assert_eq!(state, "logits");
    // The last digits may differ.
    let close = |net: &Net, batch: &Batch| logits(net, batch) * 1.000_01;
    run(Teacher::of_logits(&net(5, 2), close)).unwrap();
}

#[test]
fn samples_that_share_a_key_are_refused() {
    let keys: [fn(&Batch) -> Vec<u64>; 2] = [
        // Two samples of one batch.
        |batch| vec![batch.keys[0], batch.keys[0], batch.keys[2], batch.keys[3]],
        // The position in the batch.
        |_| vec![0, 1, 2, 3],
    ];
    for key in keys {
        let scratch = Scratch::new("shared");
        let cache = TeacherCache::open(&scratch.0, key).unwrap();
        let config = LogitsConfig::new();
        let teacher = teacher(5, 2).with_cache(cache);
        let chain = LogitsDistiller::from_teachers(chain(3), rules(FC), teacher, config);
        let error = chain.unwrap().compress(Budget::steps(3)).unwrap_err();
        assert!(error.to_string().contains("a key of its own"), "{error}");
    }
}

fn refused(cache: TeacherCache<Batch>, teacher: Teacher<Batch>) -> DistillationError {
    let config = LogitsConfig::new();
    let chain =
        LogitsDistiller::from_teachers(chain(3), rules(FC), teacher.with_cache(cache), config);
    let error = chain.and_then(|chain| chain.compress(Budget::steps(1)));
    match error.unwrap_err() {
        Error::Algorithm { source, .. } => *source.downcast().unwrap(),
        error => panic!("{error}"),
    }
}

#[test]
fn the_cache_of_another_teacher_is_refused() {
    let scratch = Scratch::new("foreign");
    run(Some(scratch.cache()));
    // Another teacher, other states of the same one.
    for teacher in [teacher(3, 9), teacher(3, 2)] {
        let error = refused(scratch.cache(), teacher);
        assert!(
            matches!(error, DistillationError::ForeignCache { .. }),
            "{error}"
        );
        assert!(error.to_string().contains("first._output_0"), "{error}");
    }
}

#[test]
fn keys_that_do_not_fit_the_batch() {
    let scratch = Scratch::new("keys");
    let keys: [fn(&Batch) -> Vec<u64>; 2] = [|_| vec![1, 2, 3], |_| Vec::new()];
    for key in keys {
        let cache = TeacherCache::open(&scratch.0, key).unwrap();
        let error = refused(cache, teacher(5, 2));
        assert!(!error.to_string().is_empty());
        let keys = matches!(error, DistillationError::SampleKeys { .. });
        assert!(keys || error.to_string().contains("no samples"), "{error}");
    }
}

fn opened(path: &Path) -> Result<TeacherCache<Batch>, DistillationError> {
    TeacherCache::open(path, |batch: &Batch| batch.keys.clone())
}

#[test]
fn damaged_files_are_refused() {
    let scratch = Scratch::new("damaged");
    run(Some(scratch.cache()));
    let whole = std::fs::read(&scratch.0).unwrap();
    let refused = |content: &[u8]| {
        std::fs::write(&scratch.0, content).unwrap();
        let error = opened(&scratch.0).unwrap_err();
        assert!(matches!(error, DistillationError::Cache { .. }), "{error}");
        let path = scratch.0.display().to_string();
        assert!(error.to_string().contains(&path), "{error}");
    };
    for length in [0, 7, 8, 15, 23, 24, 40, whole.len() / 2, whole.len() - 1] {
        refused(&whole[..length]);
    }
    for at in 0..24 {
        let mut damaged = whole.clone();
        damaged[(whole.len() - 1) * at / 23] ^= 4;
        refused(&damaged);
    }
    refused(&[&whole[..], b"more"].concat());
    std::fs::write(&scratch.0, &whole).unwrap();
    assert_eq!(opened(&scratch.0).unwrap().len(), 3 * SAMPLES);
}
