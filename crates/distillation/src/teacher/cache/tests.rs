use std::path::Path;

use burn::tensor::{DType, Int};

use super::*;

/// A batch is its keys.
fn bound(path: &Path) -> Bound<Vec<u64>> {
    let cache = TeacherCache::open(path, |keys: &Vec<u64>| keys.clone()).unwrap();
    cache.belonging_to(7, vec!["a._output_0".into()]).unwrap()
}

/// A file that is never written.
fn nowhere() -> PathBuf {
    std::env::temp_dir().join("burn-compress-no-such-file")
}

/// A state of two rows for each sample, filled with numbers from `begin` on.
fn rows(samples: usize, begin: i64) -> FlatTensor {
    let numbers = Tensor::<1, Int>::arange(begin..begin + 2 * samples as i64, &Device::flex());
    FlatTensor {
        values: numbers.float(),
        shape: vec![2 * samples, 1],
    }
}

/// A state of two rows for each sample with these values.
fn values(values: &[f32]) -> FlatTensor {
    FlatTensor {
        values: Tensor::from_floats(values, &Device::flex()),
        shape: vec![values.len(), 1],
    }
}

fn outputs(cache: &mut Bound<Vec<u64>>, keys: &[u64], state: Option<FlatTensor>) -> Vec<f32> {
    let run = || Ok(vec![state.expect("the teacher does not run")]);
    let states = cache.states(&keys.to_vec(), &Device::flex(), run).unwrap();
    assert_eq!(states[0].shape, [2 * keys.len(), 1]);
    states[0].to_vec().unwrap()
}

#[test]
fn samples_are_found_in_any_batch() {
    let mut cache = bound(&nowhere());
    assert_eq!(
        outputs(&mut cache, &[5, 9], Some(rows(2, 0))),
        [0.0, 1.0, 2.0, 3.0]
    );
    // Stored samples are compared once.
    assert_eq!(
        outputs(&mut cache, &[9], Some(values(&[2.0, 3.0]))),
        [2.0, 3.0]
    );
    assert_eq!(outputs(&mut cache, &[9], None), [2.0, 3.0]);
    assert_eq!(
        outputs(&mut cache, &[9, 5, 9], None),
        [2.0, 3.0, 0.0, 1.0, 2.0, 3.0]
    );
    // What is stored does not change, though the teacher gives a little more.
    let half_stored = outputs(&mut cache, &[9, 4], Some(values(&[2.001, 3.0, 12.0, 13.0])));
    assert_eq!(half_stored, [2.0, 3.0, 12.0, 13.0]);
}

#[test]
fn another_answer_is_an_error() {
    let mut cache = bound(&nowhere());
    outputs(&mut cache, &[5, 9], Some(rows(2, 0)));
    let mut error = |keys: &[u64], state: FlatTensor| {
        let states = cache.states(&keys.to_vec(), &Device::flex(), || Ok(vec![state]));
        states.unwrap_err()
    };
    let half_stored = error(&[9, 4], rows(2, 10));
    assert!(matches!(
        half_stored,
        DistillationError::CachedAnswer { key: 9, .. }
    ));
    let twice = error(&[7, 7], rows(2, 10));
    assert!(matches!(
        twice,
        DistillationError::CachedAnswer { key: 7, .. }
    ));
}

#[test]
fn stored_samples_are_compared_at_powers_of_ten() {
    let mut cache = bound(&nowhere());
    outputs(&mut cache, &[5], Some(rows(1, 0)));
    let runs = std::cell::Cell::new(0);
    for _ in 0..100 {
        let run = || {
            runs.set(runs.get() + 1);
            Ok(vec![rows(1, 0)])
        };
        cache.states(&vec![5], &Device::flex(), run).unwrap();
    }
    assert_eq!(runs.get(), 3, "the 1st, the 10th and the 100th");
}

#[test]
fn half_precision_comes_back_as_it_was() {
    let mut cache = bound(&nowhere());
    let values = Tensor::<1>::from_floats([0.1, 65504.0], &Device::flex()).cast(DType::F16);
    let state = FlatTensor {
        values: values.clone(),
        shape: vec![2, 1],
    };
    let run = || Ok(vec![state]);
    let states = cache.states(&vec![1], &Device::flex(), run).unwrap();
    assert_eq!(states[0].values.dtype(), DType::F16);
    assert_eq!(states[0].values.clone().into_data(), values.into_data());
}

#[test]
fn what_f32_cannot_hold_is_refused() {
    let mut cache = bound(&nowhere());
    let values = Tensor::<1>::from_floats([0.1, 0.2], &Device::flex()).cast(DType::F64);
    let state = FlatTensor {
        values,
        shape: vec![2, 1],
    };
    let run = || Ok(vec![state]);
    let error = cache.states(&vec![1], &Device::flex(), run).unwrap_err();
    assert!(error.to_string().contains("F64"), "{error}");
}

#[test]
fn a_file_that_cannot_be_written_is_named_at_the_first_batch() {
    let path = std::env::temp_dir().join("burn-compress-no-such-folder/teacher.cache");
    let mut cache = bound(&path);
    let states = cache.states(&vec![1], &Device::flex(), || Ok(vec![rows(1, 0)]));
    let error = states.unwrap_err();
    assert!(
        error.to_string().contains(&path.display().to_string()),
        "{error}"
    );
}

#[test]
fn a_state_without_samples_is_no_cache() {
    let folder = std::env::temp_dir();
    let path = folder.join(format!("burn-compress-{}-rankless", std::process::id()));
    let state = StateOf {
        shape: Vec::new(),
        dtype: DType::F32,
        values: vec![1.0],
    };
    let sample = Sample {
        states: vec![state],
    };
    let content = Content {
        teacher: 7,
        states: vec!["a._output_0".into()],
        samples: IndexMap::from([(5, sample)]),
    };
    file::write(&path, &content).unwrap();
    let error = TeacherCache::open(&path, |keys: &Vec<u64>| keys.clone()).unwrap_err();
    std::fs::remove_file(&path).unwrap();
    assert!(error.to_string().contains("of shape []"), "{error}");
}
