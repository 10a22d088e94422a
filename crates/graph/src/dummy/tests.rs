//! Inputs of other sizes, random inputs, and the call of the forward pass.

use super::*;
use burn::nn::{Linear, LinearConfig};

fn assert_shareable<T: Send + Sync + Clone>(_: &T) {}

#[test]
fn inputs_and_outputs_of_any_signature() {
    let device = Device::flex();
    let model = LinearConfig::new(3, 2).with_bias(false).init(&device);
    let inputs = (
        Tensor::<2>::ones([4, 3], &device),
        Tensor::<1, Int>::zeros([4], &device),
        Tensor::<1, Bool>::empty([4], &device),
    );
    let dummy = DummyInput::new(inputs, |model: &Linear, (x, rows, _flags)| {
        let y = model.forward(x);
        (y.clone(), vec![y.clone().select(0, rows), y])
    });
    assert_shareable(&dummy);
    let outputs = dummy.clone().run(&model, &device);
    let weight = model.weight.val().to_data().try_to_vec::<f32>().unwrap();
    let first = outputs[0].try_to_vec::<f32>().unwrap()[0];
    assert_eq!(outputs.len(), 3);
    assert!((first - (weight[0] + weight[2] + weight[4])).abs() < 1e-6);
    let traced = dummy.trace(&model, &device);
    let shapes: Vec<_> = traced.inputs.into_iter().map(|(_, shape)| shape).collect();
    assert_eq!(shapes, [vec![4, 3], vec![4], vec![4]]);
}

#[test]
fn inputs_on_a_device_with_gradients() {
    let device = Device::flex();
    let model = LinearConfig::new(3, 2).init(&device);
    let inputs = (
        Tensor::<2>::ones([4, 3], &device.clone().autodiff()).require_grad(),
        Tensor::<1, Int>::zeros([4], &device.clone().autodiff()),
    );
    let dummy = DummyInput::new(inputs, |model: &Linear, (x, _rows)| model.forward(x));
    assert_eq!(dummy.run(&model, &device)[0].shape().to_vec(), [4, 2]);
    assert!(crate::capture(&model, &dummy).is_ok());
}

#[test]
fn inputs_made_by_the_closure() {
    let device = Device::flex();
    let model = LinearConfig::new(3, 2).init(&device);
    let dummy = DummyInput::from_fn(|model: &Linear, device| {
        model.forward(Tensor::<2>::ones([5, 3], device))
    });
    assert_eq!(dummy.run(&model, &device)[0].shape().to_vec(), [5, 2]);
    assert!(dummy.run_f64(&model, &device).is_none());
}

#[test]
fn random_inputs_are_like_the_given_ones() {
    let device = Device::flex();
    let inputs = (
        Tensor::<1>::from_floats([4.0, 8.0, 4.0, 8.0], &device),
        Tensor::<1, Int>::from_ints([3, 5], &device),
        Tensor::<1, Bool>::from_data([true, false], &device),
    );
    let dummy = DummyInput::new(inputs, |_: &(), (x, n, b)| (x, n, b));
    let run = |seed| dummy.run_random(&(), &device, seed).unwrap();
    let (once, again) = (run(1), run(1));
    (0..3).for_each(|at| once[at].assert_eq(&again[at], true));
    assert_ne!(once[0].as_bytes(), run(2)[0].as_bytes());
    let floats = once[0].try_to_vec::<f32>().unwrap();
    // Mean 6 and deviation 2, uniform: 6 - 2 sqrt(3) to 6 + 2 sqrt(3).
    assert!(
        floats.iter().all(|x| (2.53..9.47).contains(x)),
        "{floats:?}"
    );
    assert!(once[1].iter::<i64>().all(|n| (3..=5).contains(&n)));
    assert_eq!(once[2].try_to_vec::<bool>().unwrap(), [true, false]);
    let wide = dummy.run_random_f64(&(), &device, 1).unwrap();
    assert_eq!(
        wide[0].try_to_vec::<f64>().unwrap()[0],
        f64::from(floats[0])
    );
}

#[test]
fn inputs_of_other_sizes() {
    let device = Device::flex();
    let inputs = (
        Tensor::<2>::from_floats([[1.0, 2.0], [3.0, 4.0]], &device),
        Tensor::<1, Int>::from_ints([3, 5, 7], &device),
    );
    let dummy = DummyInput::new(inputs, |_: &(), (x, n)| (x, n));
    let other = dummy.resized(&[vec![3, 1], vec![2]]).unwrap();
    let outputs = other.run(&(), &device);
    assert_eq!(outputs[0].try_to_vec::<f32>().unwrap(), [1.0, 3.0, 1.0]);
    assert_eq!(outputs[1].iter::<i64>().collect::<Vec<_>>(), [3, 5]);
    let random = other.run_random(&(), &device, 1).unwrap();
    assert_eq!(random[0].shape().to_vec(), [3, 1]);
    let randomized = other.randomized(1).unwrap().run(&(), &device);
    (0..2).for_each(|at| randomized[at].assert_eq(&random[at], true));
    assert!(dummy.resized(&[vec![3, 1]]).is_none());
    assert!(dummy.resized(&[vec![3], vec![2]]).is_none());
    let made = DummyInput::from_fn(|_: &(), device| Tensor::<1>::ones([1], device));
    assert!(made.resized(&[vec![2]]).is_none());
}

#[test]
fn clones_are_the_same_until_a_rule_is_added() {
    let make = || DummyInput::from_fn(|_: &(), device| Tensor::<1>::ones([1], device));
    let dummy = make();
    assert!(dummy.is_clone_of(&dummy.clone()));
    assert!(!dummy.is_clone_of(&make()));
    let rule = |_: &Operation| OperationRule::new();
    let ruled = dummy.clone().with_rule("own", rule);
    assert!(!dummy.is_clone_of(&ruled));
    assert!(ruled.is_clone_of(&ruled.clone()));
}

#[test]
fn inputs_in_f64() {
    let device = Device::flex();
    let inputs = (
        Tensor::<1>::from_floats([0.5], &device),
        Tensor::<1, Int>::from_ints([3], &device),
    );
    let dummy = DummyInput::new(inputs, |_: &(), (x, n)| (x / 3.0, n));
    let outputs = dummy.run_f64(&(), &device).unwrap();
    assert_eq!(outputs[0].try_to_vec::<f64>().unwrap(), [0.5 / 3.0]);
    assert_eq!(outputs[1].shape().to_vec(), [1]);
}
