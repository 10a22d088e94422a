//! Linear layers that are trained with the student and dropped with the distiller.
//!
//! [`Projected`] puts them in front of a loss: the student's features go through a linear layer to
//! the teacher's width, and the loss compares what comes out. A projection is made when the first
//! batch tells the widths of both hidden states. Its start depends on the seed and on the names of
//! its ends alone, so it is the same in every run.

use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use burn_compress_core::config::Selected;
use burn_compress_core::{AlgorithmState, BoxError, Learnable, TrainedBy};
use indexmap::IndexMap;

use crate::link::{Hidden, LinkLoss, incomparable, nonempty};
use crate::{DistillationError, DistillationLoss, DistillationSettings};

/// A loss that compares the student's projected features with the teacher's.
pub(crate) trait ProjectedLoss: Send {
    /// Refuses what a rule says and the loss does not follow.
    fn check(&self, item: &Selected<DistillationSettings>) -> Result<(), DistillationError>;

    /// The loss of one link, between hidden states that have elements.
    fn loss(
        &self,
        student: &Hidden,
        teacher: &Hidden,
        configured: DistillationLoss,
        projections: &mut Projections,
    ) -> Result<Tensor<1>, BoxError>;
}

/// A loss and the projections that it trains.
pub(crate) struct Projected<L> {
    loss: L,
    projections: Projections,
}

impl<L> Projected<L> {
    pub(crate) fn new(loss: L, seed: u64) -> Self {
        Self {
            loss,
            projections: Projections::new(seed),
        }
    }
}

impl<L: ProjectedLoss> LinkLoss for Projected<L> {
    fn check(&self, item: &Selected<DistillationSettings>) -> Result<(), DistillationError> {
        let layer = item.layer.path.clone();
        if item.settings.channels.is_some() {
            return Err(DistillationError::UnusedSetting {
                key: "channels",
                layer,
                reason: "the projection reads what the masked channels leave",
            });
        }
        match item.settings.links(&layer).len() {
            1 => self.loss.check(item),
            found => Err(DistillationError::Links {
                student: layer,
                found,
            }),
        }
    }

    fn attach(&mut self, device: &Device) {
        self.projections.device = device.clone();
    }

    fn loss(
        &mut self,
        student: &Hidden,
        teacher: &Hidden,
        configured: DistillationLoss,
    ) -> Result<Tensor<1>, BoxError> {
        nonempty(student, teacher)?;
        self.loss
            .loss(student, teacher, configured, &mut self.projections)
    }

    fn learnables(&self) -> Vec<Arc<Learnable>> {
        self.projections.learnables()
    }

    fn state(&self) -> AlgorithmState {
        self.projections.state()
    }

    fn load_state(&mut self, state: &AlgorithmState) -> Result<(), BoxError> {
        self.projections.load_state(state)
    }
}

/// The projections of a distiller, by the names of their ends.
#[derive(Debug)]
pub(crate) struct Projections {
    seed: u64,
    device: Device,
    made: IndexMap<String, Projection>,
}

/// A linear layer over features.
#[derive(Clone, Debug)]
struct Projection {
    /// `[student, teacher]`.
    weight: Arc<Learnable>,
    /// `[teacher]`.
    bias: Arc<Learnable>,
}

/// Behind the name of a projection in a checkpoint.
const STUDENT: &str = "/student";
const TEACHER: &str = "/teacher";

impl Projections {
    fn new(seed: u64) -> Self {
        Self {
            seed,
            device: Device::default(),
            made: IndexMap::new(),
        }
    }

    /// Features of the student in the teacher's width.
    ///
    /// # Shapes
    ///
    /// - rows: `[rows, student]`
    /// - result: `[rows, width]`
    pub(crate) fn apply(
        &mut self,
        (student, teacher): (&Hidden, &Hidden),
        rows: Tensor<2>,
        width: usize,
    ) -> Result<Tensor<2>, BoxError> {
        let widths = [rows.dims()[1], width];
        Ok(self.between(student, teacher, widths)?.apply(rows))
    }

    /// The projection between two hidden states with these widths, made now if there is none.
    fn between(
        &mut self,
        student: &Hidden,
        teacher: &Hidden,
        widths: [usize; 2],
    ) -> Result<Projection, BoxError> {
        let name = format!("{}/{}", student.id, teacher.teacher);
        let projection = match self.made.get(&name) {
            Some(projection) => projection.clone(),
            None => self.make(&name, widths)?,
        };
        match projection.weight.shape() == widths {
            true => Ok(projection),
            false => {
                let expected = "their widths were others in the batches before";
                Err(incomparable(student, teacher, expected).into())
            }
        }
    }

    fn make(&mut self, name: &str, [student, teacher]: [usize; 2]) -> Result<Projection, BoxError> {
        // As linear layers start in Burn and PyTorch.
        let bound = 1.0 / (student as f64).sqrt();
        let mut draws = Draws::new(self.seed, name);
        let mut uniform = |count: usize| -> Vec<f32> {
            let draw = |_| (bound * (2.0 * draws.next() - 1.0)) as f32;
            (0..count).map(draw).collect()
        };
        let (weight, bias) = (uniform(student * teacher), uniform(teacher));
        let learnable = |part: &str, values: Vec<f32>, shape: Vec<usize>| {
            let name = format!("{name}/{part}");
            Learnable::new(name, values, shape, TrainedBy::Evaluator, &self.device)
        };
        let projection = Projection {
            weight: learnable("weight", weight, vec![student, teacher])?,
            bias: learnable("bias", bias, vec![teacher])?,
        };
        self.made.insert(name.to_string(), projection.clone());
        Ok(projection)
    }

    fn learnables(&self) -> Vec<Arc<Learnable>> {
        let made = self.made.values();
        made.flat_map(|projection| [projection.weight.clone(), projection.bias.clone()])
            .collect()
    }

    /// The widths: what is needed to make the projections again.
    fn state(&self) -> AlgorithmState {
        let widths = self.made.iter().flat_map(|(name, projection)| {
            let shape = projection.weight.shape();
            [(STUDENT, shape[0]), (TEACHER, shape[1])]
                .map(|(end, width)| (format!("{name}{end}"), width as f64))
        });
        AlgorithmState {
            values: widths.collect(),
            ..AlgorithmState::default()
        }
    }

    fn load_state(&mut self, state: &AlgorithmState) -> Result<(), BoxError> {
        self.made.clear();
        for (key, &student) in &state.values {
            let Some(name) = key.strip_suffix(STUDENT) else {
                continue;
            };
            let teacher = state.values.get(&format!("{name}{TEACHER}"));
            let width = |width: f64| (1.0..1e9).contains(&width).then_some(width as usize);
            match (width(student), teacher.copied().and_then(width)) {
                (Some(student), Some(teacher)) => self.make(name, [student, teacher])?,
                _ => {
                    return Err(DistillationError::Setting {
                        key: "the width of a projection",
                        value: format!("{student} at `{name}`"),
                        expected: "a number of features on both sides".to_string(),
                    }
                    .into());
                }
            };
        }
        Ok(())
    }
}

impl Projection {
    /// # Shapes
    ///
    /// - rows: `[rows, student]`
    /// - result: `[rows, teacher]`
    fn apply(&self, rows: Tensor<2>) -> Tensor<2> {
        let [student, teacher]: [usize; 2] = [self.weight.shape()[0], self.weight.shape()[1]];
        let of = |part: &Learnable| part.tensor_for(&rows).cast(rows.dtype());
        let weight = of(&self.weight).reshape([student, teacher]);
        let bias = of(&self.bias).reshape([1, teacher]);
        rows.matmul(weight) + bias
    }
}

/// SplitMix64, begun at a seed and a name.
struct Draws(u64);

impl Draws {
    fn new(seed: u64, name: &str) -> Self {
        let name = name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        Self(seed ^ name)
    }

    /// A number from 0 up to but not including 1.
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use burn_compress_core::{FlatTensor, TargetId};

    use super::*;

    fn hidden(target: &str, features: usize) -> Hidden {
        Hidden {
            id: target.parse::<TargetId>().unwrap(),
            teacher: 0,
            state: FlatTensor::new(Tensor::<2>::ones([2, features], &Device::flex())),
            channel_dim: 1,
        }
    }

    fn values(projections: &Projections) -> Vec<Vec<f32>> {
        let learnables = projections.learnables();
        learnables.iter().map(|one| one.values().unwrap()).collect()
    }

    #[test]
    fn it_is_a_linear_layer() {
        let mut projections = Projections::new(1);
        let (student, teacher) = (hidden("a._output_0", 2), hidden("b._output_0", 3));
        let projection = projections.between(&student, &teacher, [2, 3]).unwrap();
        projection
            .weight
            .set_values(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
            .unwrap();
        projection.bias.set_values(vec![0.0, 10.0, 20.0]).unwrap();
        let rows = Tensor::from_floats([[1.0, -1.0]], &Device::flex());
        // 1 - 4, 2 - 5 + 10, 3 - 6 + 20.
        let projected: Vec<f32> = projection.apply(rows).into_data().try_to_vec().unwrap();
        assert_eq!(projected, [-3.0, 7.0, 17.0]);
    }

    #[test]
    fn the_start_depends_on_seed_and_names_alone() {
        let make = |seed, names: &[&str]| {
            let mut projections = Projections::new(seed);
            for name in names {
                let (student, teacher) = (hidden(name, 4), hidden("t._output_0", 5));
                projections.between(&student, &teacher, [4, 5]).unwrap();
            }
            values(&projections)
        };
        let both = make(7, &["a._output_0", "b._output_0"]);
        assert_eq!(make(7, &["b._output_0"]), both[2..]);
        assert_ne!(both[..2], both[2..]);
        assert_ne!(make(8, &["b._output_0"]), both[2..]);
        let bounded = both.iter().flatten().all(|value| value.abs() <= 0.5);
        assert!(bounded, "{both:?}");
    }

    #[test]
    fn a_state_makes_them_again() {
        let mut projections = Projections::new(7);
        let (student, teacher) = (hidden("a._output_0", 4), hidden("t._output_0", 5));
        projections.between(&student, &teacher, [4, 5]).unwrap();
        let mut resumed = Projections::new(7);
        resumed.load_state(&projections.state()).unwrap();
        assert_eq!(values(&resumed), values(&projections));
        let mut broken = projections.state();
        broken.values.shift_remove("a._output_0/0/teacher");
        assert!(resumed.load_state(&broken).is_err());
    }

    #[test]
    fn widths_stay() {
        let mut projections = Projections::new(7);
        let (student, teacher) = (hidden("a._output_0", 4), hidden("t._output_0", 5));
        projections.between(&student, &teacher, [4, 5]).unwrap();
        assert!(projections.between(&student, &teacher, [4, 6]).is_err());
    }
}
