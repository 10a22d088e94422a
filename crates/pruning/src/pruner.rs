//! A pruner of any importance over any source.

use burn::module::Module;
use burn_compress_core::config::{ConfigList, Selected};
use burn_compress_core::erased::{AnyBatch, AnyModel};
use burn_compress_core::{Chain, Configuration, Error, Method};
use serde::Serialize;

use crate::config::{CutOf, PrunerConfig};
use crate::fused::FusedPruner;
use crate::groups::build;
use crate::importance::{Importance, Scale, Scorer};
use crate::sources::{Collector, ScoreSource, Scored, Weights};
use crate::timing::{Decisions, Timing};
use crate::{PruningError, PruningSettings};

/// A pruner of an importance of one's own.
///
/// It does all that a built-in pruner does: the graph groups its channels,
/// [`AgpPruner`](crate::AgpPruner) and [`LinearPruner`](crate::LinearPruner) schedule it, other
/// compressors are fused with it, checkpoints hold what it has collected and its configuration, and
/// speedup cuts what it has masked.
///
/// ```
/// use burn::nn::{Linear, LinearConfig};
/// use burn::optim::SgdConfig;
/// use burn::tensor::{Device, Tensor};
/// use burn_compress_core::config::ConfigList;
/// use burn_compress_core::{Budget, Error, Evaluator, Method};
/// use burn_compress_pruning::{AgpConfig, AgpPruner, Blocks, Importance, Pruner, PrunerConfig};
/// use burn_compress_pruning::sources::Gradients;
///
/// /// The largest sum of squares in a block decides, and not the sum over the block.
/// struct Peak;
///
/// impl Importance for Peak {
///     fn score(&self, values: &[f32], blocks: &Blocks) -> Vec<f32> {
///         blocks.reduce(values, |block| block.iter().copied().fold(0.0, f32::max))
///     }
/// }
///
/// let device = Device::flex();
/// let model = LinearConfig::new(4, 6).init(&device);
/// let batch = Tensor::<2>::ones([2, 4], &device);
/// let evaluator = Evaluator::new()
///     .with_data(move |_epoch| vec![batch.clone()])
///     .with_optimizer(SgdConfig::new().init())
///     .with_learning_rate(0.1)
///     .with_loss(|model: &Linear, batch: &Tensor<2>| model.forward(batch.clone()).square().mean());
/// let rules = ConfigList::from_json(r#"[{"op_types": ["Linear"], "sparse_ratio": 0.5}]"#)?;
/// let pruner = Pruner::over(Gradients::taylor(2), Peak)
///     .with_config(PrunerConfig::new().with_coupled(false))
///     .new(model, &rules, evaluator)?;
/// let pruner = AgpPruner::new(pruner, AgpConfig::new(3, 2))?;
/// let compressed = pruner.compress(Budget::steps(6))?;
/// assert_eq!(compressed.masks()[0].sparsity(), 0.5);
/// # Ok::<(), Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Pruner<P, S = Weights> {
    importance: P,
    source: S,
    config: PrunerConfig,
    name: &'static str,
    /// That of a built-in pruner; otherwise importance, source and settings are.
    configuration: Option<Configuration>,
}

impl<P: Importance + Send + 'static> Pruner<P> {
    /// A pruner of a score of the weights, called as the type of the importance.
    pub fn with(importance: P) -> Self {
        Self::over(Weights, importance)
    }
}

impl<P: Importance + Send + 'static, S: ScoreSource> Pruner<P, S> {
    /// A pruner of a score of what `source` gives, called as the type of the importance.
    pub fn over(source: S, importance: P) -> Self {
        Self {
            importance,
            source,
            config: PrunerConfig::new(),
            name: short_type_name::<P>(),
            configuration: None,
        }
    }

    /// Sets the settings that all pruners share.
    #[must_use]
    pub fn with_config(self, config: PrunerConfig) -> Self {
        Self { config, ..self }
    }

    /// Sets the name of the pruner in errors, warnings and checkpoints.
    #[must_use]
    pub fn with_name(self, name: &'static str) -> Self {
        Self { name, ..self }
    }

    /// A pruner with the name, the configuration and the shared settings of a built-in one.
    pub(crate) fn built_in(
        self,
        name: &'static str,
        configuration: &impl Serialize,
        config: PrunerConfig,
    ) -> Self {
        Self {
            name,
            config,
            configuration: Some(Configuration::of(configuration)),
            ..self
        }
    }
}

impl<M, I, P, S> Method<M, I> for Pruner<P, S>
where
    M: Module + 'static,
    I: 'static,
    P: Importance + Send + 'static,
    S: ScoreSource,
{
    type Settings = PruningSettings;

    fn name(&self) -> &'static str {
        self.name
    }

    fn add_to(
        self,
        chain: &mut Chain<'_, M, I>,
        rules: &ConfigList<PruningSettings>,
    ) -> Result<(), Error> {
        let (source, config) = (&self.source, self.config);
        let configuration = self.configuration.unwrap_or_else(|| {
            (self.importance.configuration())
                .with("source", source)
                .with("pruner", &config)
        });
        let scorer = Scorer::new(self.name, self.importance, source.observes_outputs());
        let collector = |scored: &Scored<'_, AnyModel, AnyBatch>| source.collector(scored);
        let unfused = Unfused {
            name: self.name,
            timing: source.timing(),
            observes: source.observes_outputs(),
            scorer,
            config,
            configuration,
            collector: &collector,
        };
        unfused.add(&mut chain.erased(), rules)
    }
}

/// A pruner whose importance and source are forgotten.
struct Unfused<'a> {
    name: &'static str,
    timing: Timing,
    /// Whether the source observes outputs.
    observes: bool,
    scorer: Scorer,
    config: PrunerConfig,
    configuration: Configuration,
    collector: &'a MakeCollector<'a>,
}

/// Makes the collector of a source.
type MakeCollector<'a> =
    dyn Fn(&Scored<'_, AnyModel, AnyBatch>) -> Result<AnyCollector, PruningError> + 'a;

type AnyCollector = Box<dyn Collector<AnyModel, AnyBatch>>;

impl Unfused<'_> {
    /// Adds the pruner to a chain of any model.
    fn add(
        self,
        chain: &mut Chain<'_, AnyModel, AnyBatch>,
        rules: &ConfigList<PruningSettings>,
    ) -> Result<(), Error> {
        let (name, timing, scorer) = (self.name, self.timing, self.scorer);
        timing.check()?;
        if self.config.cut_of == CutOf::Graph && !self.config.coupled {
            return Err(PruningError::Setting {
                key: "cut_of",
                value: "graph".to_string(),
                expected: "`coupled` as well: masks that are not coupled promise no cut",
            }
            .into());
        }
        if timing.trains() {
            chain.evaluator().require_training(name)?;
        }
        let selected = PruningSettings::select(rules, chain.layers())?;
        let normalizes = self.config.coupled && scorer.scale() == Scale::Layer;
        reject_idle(&selected, name, self.observes, normalizes)?;
        let groups = build(chain, &scorer, &selected, self.config)?;
        let collector = (self.collector)(&Scored {
            pruner: name,
            chain,
            targets: groups.scored()?,
            selected: &selected,
            by_graph: self.config.coupled,
        })?;
        let configuration = selected
            .iter()
            .fold(self.configuration, |configuration, item| {
                configuration.with_target(&item.id(), &item.settings.without_defaults())
            });
        chain.push(FusedPruner {
            name,
            scorer,
            decisions: Decisions::new(timing),
            collector,
            groups,
            configuration,
        });
        Ok(())
    }
}

/// The type's name without its path and its parameters.
fn short_type_name<T>() -> &'static str {
    let name = std::any::type_name::<T>();
    let name = name.split('<').next().unwrap_or(name);
    name.rsplit("::").next().unwrap_or(name)
}

/// Rejects settings that mean nothing to a pruner.
fn reject_idle(
    selected: &[Selected<PruningSettings>],
    pruner: &'static str,
    observes: bool,
    normalizes: bool,
) -> Result<(), PruningError> {
    for item in selected {
        let settings = &item.settings;
        let keys = [
            ("activation", settings.activation.is_some() && !observes),
            ("normalizer", settings.normalizer.is_some() && !normalizes),
        ];
        if let Some((key, _)) = keys.into_iter().find(|(_, idle)| *idle) {
            return Err(PruningError::NoEffect { key, pruner }.at(item.id()));
        }
    }
    Ok(())
}
