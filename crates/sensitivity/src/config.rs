//! What an analysis measures.

use burn_compress_core::Granularity;
use burn_compress_core::config::Rule;
use burn_compress_pruning::scores::L1Norm;
use burn_compress_pruning::{Importance, PruningSettings};
use burn_compress_quantization::QuantizationSettings;

use crate::error::{Refusal, SensitivityError};

/// What an analysis measures, and on how much data.
///
/// [`analyze`](Self::analyze) does all of it; [`begin`](Self::begin) and [`resume`](Self::resume) one
/// point after another.
#[derive(Clone, Debug)]
pub struct SensitivityConfig<P = L1Norm> {
    pub(crate) importance: P,
    pub(crate) pruning: Option<Rule<PruningSettings>>,
    pub(crate) quantization: Option<Rule<QuantizationSettings>>,
    pub(crate) sparsities: Vec<f64>,
    pub(crate) bits: Vec<u8>,
    pub(crate) batches: usize,
    pub(crate) metric: bool,
    pub(crate) coupled: bool,
}

impl SensitivityConfig {
    /// Sparsities of 0.25, 0.5, 0.75 and 0.9 and 8, 6, 4 and 2 bits on 8 batches; which layers, is not
    /// set yet.
    pub fn new() -> Self {
        Self {
            importance: L1Norm,
            pruning: None,
            quantization: None,
            sparsities: vec![0.25, 0.5, 0.75, 0.9],
            bits: vec![8, 6, 4, 2],
            batches: 8,
            metric: false,
            coupled: true,
        }
    }
}

impl Default for SensitivityConfig {
    fn default() -> Self {
        Self::new()
    }
}

impl<P: Importance + Clone + Send + 'static> SensitivityConfig<P> {
    /// Sets the layers to prune, `on(["Conv2d"])`.
    ///
    /// Of the settings, `granularity` (whole channels, or features of heads), `round_to` and
    /// `normalizer` may be set; they are those of the rules that are made of the result, too.
    #[must_use]
    pub fn with_pruning(mut self, layers: Rule<PruningSettings>) -> Self {
        self.pruning = Some(layers);
        self
    }

    /// Sets the layers to quantize, with any targets and settings but the integer type.
    #[must_use]
    pub fn with_quantization(mut self, layers: Rule<QuantizationSettings>) -> Self {
        self.quantization = Some(layers);
        self
    }

    /// Sets the fractions of the channels that are removed, above 0 and below 1.
    #[must_use]
    pub fn with_sparsities(mut self, sparsities: impl Into<Vec<f64>>) -> Self {
        self.sparsities = sparsities.into();
        self
    }

    /// Sets the bits of the signed integers, 1 to 8.
    #[must_use]
    pub fn with_bits(mut self, bits: impl Into<Vec<u8>>) -> Self {
        self.bits = bits.into();
        self
    }

    /// Sets the number of batches, the first of epoch 0 of the evaluator's data. They are kept in
    /// memory. The ranges of inputs and outputs are observed on as many.
    #[must_use]
    pub fn with_batches(mut self, batches: usize) -> Self {
        self.batches = batches;
        self
    }

    /// Sets whether the evaluator's evaluation is run at each point, too.
    #[must_use]
    pub fn with_metric(mut self, metric: bool) -> Self {
        self.metric = metric;
        self
    }

    /// Sets whether the graph groups channels, as a pruner does: then the layers that lose channels
    /// together are one unit. Without, each layer is pruned alone, which no cut follows where its
    /// channels are coupled, so that no rules can be made of the result.
    #[must_use]
    pub fn with_coupled(mut self, coupled: bool) -> Self {
        self.coupled = coupled;
        self
    }

    /// Sets the score of the weights that chooses the channels; the [L1 norm](L1Norm) without this.
    #[must_use]
    pub fn with_importance<Q: Importance>(self, importance: Q) -> SensitivityConfig<Q> {
        let Self {
            importance: _,
            pruning,
            quantization,
            sparsities,
            bits,
            batches,
            metric,
            coupled,
        } = self;
        SensitivityConfig {
            importance,
            pruning,
            quantization,
            sparsities,
            bits,
            batches,
            metric,
            coupled,
        }
    }

    /// Whether channels are grouped by the graph.
    pub(crate) fn needs_graph(&self) -> bool {
        self.pruning.is_some() && self.coupled
    }

    /// What is wrong with the settings, whatever the model.
    pub(crate) fn refusals(&self) -> Vec<Refusal> {
        let mut refusals = Vec::new();
        if self.pruning.is_none() && self.quantization.is_none() {
            refusals.push(Refusal::Nothing);
        }
        if let Some(rule) = &self.pruning {
            refusals.extend(self.refused_pruning(rule));
        }
        if let Some(rule) = &self.quantization {
            refusals.extend(self.refused_quantization(rule));
        }
        if self.batches == 0 {
            refusals.push(Refusal::NoBatches);
        }
        refusals
    }

    fn refused_pruning(&self, rule: &Rule<PruningSettings>) -> Vec<Refusal> {
        let own = "the analysis sets the goal, remove it";
        let channels = "the analysis is of whole channels, remove it";
        let whole = [
            None,
            Some(Granularity::Default),
            Some(Granularity::OutChannel),
            Some(Granularity::HeadDim),
        ];
        let settings = &rule.settings;
        let keys = [
            ("sparse_ratio", settings.sparse_ratio.is_some(), own),
            ("sparse_threshold", settings.sparse_threshold.is_some(), own),
            ("max_sparse_ratio", settings.max_sparse_ratio.is_some(), own),
            ("min_sparse_ratio", settings.min_sparse_ratio.is_some(), own),
            ("global_group_id", settings.global_group_id.is_some(), own),
            (
                "dependency_group_id",
                settings.dependency_group_id.is_some(),
                own,
            ),
            ("align", settings.align.is_some(), own),
            ("pattern", settings.pattern.is_some(), channels),
            (
                "granularity",
                !whole.contains(&settings.granularity),
                channels,
            ),
            ("apply_method", settings.apply_method.is_some(), channels),
            ("target_names", rule.target_names.is_some(), channels),
            (
                "target_settings",
                !rule.target_settings.is_empty(),
                channels,
            ),
            (
                "on_unprunable",
                settings.on_unprunable.is_some(),
                "leave out the layers that cannot be pruned, with `with_exclude_op_names`",
            ),
        ];
        let mut refusals = refused("pruning", &keys);
        let builder = "with_sparsities";
        if self.sparsities.is_empty() {
            refusals.push(Refusal::Empty { builder });
        }
        for (at, &sparsity) in self.sparsities.iter().enumerate() {
            if !(sparsity > 0.0 && sparsity < 1.0) {
                refusals.push(Refusal::Sparsity(sparsity));
            } else if self.sparsities[..at].contains(&sparsity) {
                let value = sparsity.to_string();
                refusals.push(Refusal::Twice { builder, value });
            }
        }
        refusals
    }

    fn refused_quantization(&self, rule: &Rule<QuantizationSettings>) -> Vec<Refusal> {
        let settings = &rule.settings;
        let own = "the analysis sets it, use `with_bits`";
        let of_targets = rule.target_settings.values();
        let dtype = of_targets
            .chain([settings])
            .any(|s| s.quant_dtype.is_some());
        let keys = [
            ("quant_dtype", dtype, own),
            (
                "fuse_names",
                settings.fuse_names.is_some(),
                "layers are quantized one at a time, use `fuse`, which finds what follows each",
            ),
        ];
        let mut refusals = refused("quantization", &keys);
        let builder = "with_bits";
        if self.bits.is_empty() {
            refusals.push(Refusal::Empty { builder });
        }
        for (at, &bits) in self.bits.iter().enumerate() {
            if !(1..=8).contains(&bits) {
                refusals.push(Refusal::Bits(bits));
            } else if self.bits[..at].contains(&bits) {
                let value = bits.to_string();
                refusals.push(Refusal::Twice { builder, value });
            }
        }
        refusals
    }

    /// Settings that decide what is measured, for a result that goes on.
    pub(crate) fn fingerprint(&self) -> Result<String, SensitivityError> {
        let settings = (
            std::any::type_name::<P>(),
            self.importance.configuration(),
            &self.pruning,
            &self.quantization,
            (&self.sparsities, &self.bits, self.batches),
            (self.metric, self.coupled),
        );
        serde_json::to_string(&settings).map_err(|error| SensitivityError::Core(error.into()))
    }
}

fn refused(of: &'static str, keys: &[(&'static str, bool, &'static str)]) -> Vec<Refusal> {
    let set = keys.iter().filter(|(_, is_set, _)| *is_set);
    set.map(|&(key, _, advice)| Refusal::Setting { of, key, advice })
        .collect()
}
