//! What training leaves alone: teachers and the models that they were taken from.

use std::sync::{Arc, Mutex};

use burn_compress::prelude::*;
use burn_compress_tests::chains::{HALF, distill, prune, teach};
use burn_compress_tests::nets::{Batch, Net, bits, evaluator, values};

use crate::fixtures::{DISTILL, STEPS, chain, net};

#[test]
fn teacher_and_original_model_stay_as_they_were() {
    let model = net();
    let before = bits(&model);
    // Clones share their running statistics.
    let (teacher, student) = (model.clone(), model.clone());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let record = seen.clone();
    let chain = DynamicLayerwiseDistiller::new(
        student,
        ConfigList::from_json(DISTILL).unwrap(),
        evaluator(STEPS),
        &teacher,
        move |teacher: &Net, batch: &Batch| {
            record.lock().unwrap().push(bits(teacher));
            teach(teacher, batch)
        },
        DistillConfig::new(1.0),
    )
    .unwrap();
    // Neither does training the model that the teacher was taken from.
    let trained = Compressor::from_model(teacher.clone(), evaluator(STEPS));
    let trained = trained.compress(Budget::steps(2)).unwrap().into_model();
    let compressed = chain.compress(Budget::steps(5)).unwrap();
    let mean = |net: &Net| values(net, "bn.running_mean");
    assert_eq!(mean(&model), vec![0.0; 6]);
    assert_ne!(mean(compressed.model()), mean(&model));
    assert_ne!(mean(&trained), mean(&model));
    assert!(bits(&model) == before && bits(&teacher) == before);
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 5);
    assert!(seen.iter().all(|teacher| *teacher == before));
}

#[test]
fn the_raw_model_of_a_chain_has_all_its_statistics() {
    let mut trained = chain();
    trained.advance(&Budget::steps(3), None).unwrap();
    let raw = bits(&trained.unwrap_model());
    let compressed = chain().compress(Budget::steps(3)).unwrap();
    assert!(raw == bits(&compressed.unwrap_model()));
}

#[test]
fn a_compressed_model_is_a_teacher_that_simulates() {
    // The masks of a pruned teacher act when it teaches, and stay its own.
    let pruner = prune(chain(), HALF, PrunerConfig::new()).unwrap();
    let teacher = pruner.compress(Budget::none()).unwrap().into_model();
    let rules = r#"[{"op_names": ["stem"], "lambda": 1.0}]"#;
    let first_loss = |teacher: &Net| {
        let chain = distill(chain(), rules, teacher, 0.0);
        let compressed = chain.unwrap().compress(Budget::steps(1)).unwrap();
        assert!(compressed.masks().is_empty());
        compressed.history().steps[0].loss
    };
    assert_eq!(first_loss(&net()), 0.0);
    assert!(first_loss(&teacher) > 0.0);
}
