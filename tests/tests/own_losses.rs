//! A user's distillers under the tests of the built-in ones: alone, and fused with a pruner and a
//! quantizer, to the small model.

use burn::tensor::Tensor;
use burn_compress::distillation::feature::{FeatureLoss, FeaturePair, Learnables};
use burn_compress::distillation::logit::{LogitLoss, LogitPair};
use burn_compress::distillation::{DistillationError, FeatureDistiller, LogitDistiller};
use burn_compress::{BoxError, Configuration};
use burn_compress_testkit::nets::{Batch, teach, teacher};
use burn_compress_testkit::{Subject, check, hidden_states, logits, pruners, quantizers};

/// One minus the cosine between the features of student and teacher.
struct Cosine;

impl FeatureLoss for Cosine {
    fn loss(&self, pair: &FeaturePair, _: &mut Learnables) -> Result<Tensor<1>, BoxError> {
        let (student, teacher) = (pair.student.samples(), pair.teacher.samples());
        let length = |rows: &Tensor<2>| rows.clone().square().sum_dim(1).clamp_min(1e-12).sqrt();
        let lengths = length(&student) * length(&teacher);
        Ok(((student * teacher).sum_dim(1) / lengths)
            .neg()
            .add_scalar(1.0)
            .mean())
    }
}

/// The channels at each position through a trained linear layer.
struct Projected {
    seed: u64,
}

impl FeatureLoss for Projected {
    fn loss(&self, pair: &FeaturePair, learnables: &mut Learnables) -> Result<Tensor<1>, BoxError> {
        let channels = pair.student.channels();
        let rows = pair.student.channels_last().reshape([-1, channels as i64]);
        let projected = learnables.linear(rows, pair.teacher.channels(), self.seed)?;
        let expected = pair.teacher.channels_last().reshape(projected.dims());
        Ok((projected - expected).square().mean())
    }

    fn check_pair(&self, pair: &FeaturePair) -> Result<(), DistillationError> {
        pair.require_elements()
    }

    fn configuration(&self) -> Configuration {
        Configuration::default().with("seed", &self.seed)
    }
}

/// Squared errors of the logits, those of the target class twice.
struct Regression;

impl LogitLoss for Regression {
    fn loss(&self, pair: &LogitPair) -> Result<Tensor<1>, BoxError> {
        let error = (pair.student.clone() - pair.teacher.clone()).square();
        let of_target = error
            .clone()
            .gather(1, pair.labels()?.unsqueeze_dim::<2>(1));
        Ok(error.mean() + of_target.mean())
    }

    fn needs_labels(&self) -> bool {
        true
    }

    fn is_distance(&self) -> bool {
        true
    }
}

fn own_distillers() -> [Subject<'static>; 3] {
    [
        Subject::distiller("Cosine", |chain| {
            let distiller = FeatureDistiller::with(Cosine);
            Ok(distiller.from_compressor(chain, hidden_states(), &teacher(), teach)?)
        }),
        Subject::distiller("Projected", |chain| {
            let distiller = FeatureDistiller::with(Projected { seed: 3 });
            Ok(distiller.from_compressor(chain, hidden_states(), &teacher(), teach)?)
        }),
        Subject::distiller("Regression", |chain| {
            let distiller = LogitDistiller::with(Regression);
            let distiller = distiller.with_labels(|batch: &Batch| batch.labels.clone());
            Ok(distiller.from_compressor(chain, logits(), &teacher(), teach)?)
        }),
    ]
}

#[test]
fn a_user_s_distillers_conform() {
    let (pruners, quantizers) = (pruners(), quantizers());
    let pruner = pruners
        .iter()
        .find(|one| one.name() == "L1NormPruner")
        .unwrap();
    let quantizer = quantizers
        .iter()
        .find(|one| one.name() == "QatQuantizer")
        .unwrap();
    for own in &own_distillers() {
        for chain in [vec![own], vec![pruner, own], vec![pruner, quantizer, own]] {
            if let Err(failure) = check(&chain) {
                panic!("{failure}");
            }
        }
    }
}
