use burn::nn::{Linear, LinearConfig};
use burn::optim::momentum::MomentumConfig;
use burn::optim::{
    AdaGradConfig, AdafactorConfig, AdamConfig, AdamWConfig, AdanConfig, LambConfig, LionConfig,
    RmsPropConfig, SgdConfig,
};
use burn_pack::{Tensor as PackTensor, Writer};

use super::*;

const PATH: &str = "weight";

fn known(id: u64) -> Known {
    Known {
        path: vec![PATH.to_string()],
        id,
        shape: vec![3, 2],
        dtype: DType::F32,
        device: Device::flex(),
    }
}

/// What an optimizer holds after two steps of a weight, and the id of that weight.
fn stepped(mut optimizer: ModuleOptimizer) -> (Bytes, u64) {
    let config = LinearConfig::new(3, 2).with_bias(false);
    let mut model: Linear = config.init(&Device::flex()).train();
    let id = model.weight.id;
    for _ in 0..2 {
        let mut gradients = GradientsParams::new();
        gradients.register(id, Tensor::<2>::ones([3, 2], &Device::flex()));
        model = optimizer.step(0.1, model, gradients);
    }
    (optimizer.to_record().into_bytes().unwrap(), id.val())
}

#[test]
fn what_an_optimizer_wrote_is_accepted() {
    let momentum = SgdConfig::new().with_momentum(Some(MomentumConfig::new()));
    let optimizers = [
        SgdConfig::new().init(),
        momentum.init(),
        AdamConfig::new().init(),
        AdamConfig::new().with_amsgrad(true).init(),
        AdamWConfig::new().init(),
        AdanConfig::new().init(),
        AdaGradConfig::new().init(),
        AdafactorConfig::new().init(),
        LambConfig::new().init(),
        LionConfig::new().init(),
        RmsPropConfig::new().init(),
        RmsPropConfig::new().with_centered(true).init(),
    ];
    for (at, optimizer) in optimizers.into_iter().enumerate() {
        let (record, id) = stepped(optimizer.clone());
        let checked = check(&optimizer, record, &[known(id)]);
        assert_eq!(checked, Ok(()), "{at}");
    }
}

type Parts = (Vec<PackTensor>, BTreeMap<String, Scalar>);

/// A record with other parts.
fn forged(record: &Bytes, change: impl FnOnce(&mut Parts)) -> Bytes {
    let reader = Reader::from_bytes(record.clone()).unwrap();
    let scalars = reader.scalars().clone();
    let mut parts = (reader.into_tensors().unwrap(), scalars);
    change(&mut parts);
    let (tensors, scalars) = parts;
    let mut writer = Writer::new(tensors);
    for (name, value) in &scalars {
        writer = writer.with_scalar(name, *value);
    }
    writer.into_bytes().unwrap()
}

fn renamed(tensor: &PackTensor, name: String) -> PackTensor {
    let mut tensor = tensor.clone();
    tensor.name = name;
    tensor
}

#[test]
fn what_it_would_not_have_written_is_refused() {
    let adam = AdamConfig::new().init();
    let (record, id) = stepped(adam.clone());
    let rank = format!("{id}.__rank");
    let time = format!("{id}.momentum.time");
    type Change<'a> = Box<dyn FnOnce(&mut Parts) + 'a>;
    let cases: Vec<(&str, Change)> = vec![
        (
            "in place of F32 [3, 2]",
            Box::new(|(tensors, _)| tensors[0].shape = vec![2, 3].into()),
        ),
        (
            "in place of F32 [3, 2]",
            Box::new(|(tensors, _)| tensors[1].dtype = DType::I32),
        ),
        (
            "damaged",
            Box::new(|(tensors, _)| tensors[0].param_id = None),
        ),
        (
            "is missing",
            Box::new(|(tensors, _)| {
                tensors.pop();
            }),
        ),
        (
            "keeps no `velocity`",
            Box::new(|(tensors, _)| {
                let more = renamed(&tensors[0], format!("{id}.velocity"));
                tensors.push(more);
            }),
        ),
        (
            "no parameter",
            Box::new(|(tensors, _)| {
                let more = renamed(&tensors[0], "velocity".to_string());
                tensors.push(more);
            }),
        ),
        (
            "no parameter",
            Box::new(|(tensors, _)| {
                let mut more = renamed(&tensors[0], "7.velocity".to_string());
                more.param_id = Some(7);
                tensors.push(more);
            }),
        ),
        (
            "__rank",
            Box::new(|(_, scalars)| {
                scalars.insert(rank.clone(), Scalar::UInt(9));
            }),
        ),
        (
            "time",
            Box::new(|(_, scalars)| {
                scalars.insert(time.clone(), Scalar::UInt(u64::MAX));
            }),
        ),
        (
            "time",
            Box::new(|(_, scalars)| {
                scalars.insert(time.clone(), Scalar::Float(1.0));
            }),
        ),
        (
            "time",
            Box::new(|(_, scalars)| {
                scalars.remove(&time);
            }),
        ),
    ];
    for (expected, change) in cases {
        let error = check(&adam, forged(&record, change), &[known(id)]).unwrap_err();
        assert!(error.contains(expected), "{expected}: {error}");
    }
    let (other, id) = stepped(SgdConfig::new().init());
    assert!(check(&adam, other, &[known(id)]).is_err());
    let garbage = Bytes::from_bytes_vec(vec![7; 100]);
    assert!(check(&adam, garbage, &[known(id)]).is_err());
}
