//! The header of a checkpoint: where the run stood, and of which algorithms and targets it was.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::profile::Profile;
use crate::Error;
use crate::run::any_chain::AnyChain;
use crate::run::configuration::{Configuration, Difference};
use crate::simulate::mask::MaskMethod;
use crate::simulate::quantization::CalibrationEntry;
use crate::target::{Mode, TargetId};

/// The metadata under which the header is found.
pub(super) const KEY: &str = "burn-compress-checkpoint";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Header {
    pub step: usize,
    pub total_steps: usize,
    pub epoch: usize,
    pub position: usize,
    pub prepared: bool,
    pub seed: Option<u64>,
    /// None where a `Learner` trains, and in a chain that cannot train.
    pub profile: Option<Profile>,
    pub algorithms: Vec<SavedAlgorithm>,
    pub spaces: IndexMap<TargetId, SavedSpace>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SavedAlgorithm {
    pub name: String,
    pub configuration: Configuration,
    /// The bits of each number.
    pub values: IndexMap<String, u64>,
    /// The parameter id of each learnable tensor.
    pub learnables: IndexMap<String, u64>,
}

/// State of a target without its numbers, which are tensors.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SavedSpace {
    pub modes: Vec<Mode>,
    pub mask: Option<MaskMethod>,
    pub quantization: Option<CalibrationEntry>,
}

impl Header {
    pub fn read(text: &str) -> Result<Self, String> {
        serde_json::from_str(text).map_err(|error| format!("damaged header: {error}"))
    }

    /// Refuses a chain of other algorithms or targets.
    pub fn require_chain(&self, chain: &AnyChain) -> Result<(), String> {
        let here = chain.algorithms();
        let there: Vec<&str> = self
            .algorithms
            .iter()
            .map(|saved| saved.name.as_str())
            .collect();
        if here != there {
            return Err(format!(
                "it was written by the chain {there:?}, this chain is {here:?}"
            ));
        }
        let unknown = |id: &&TargetId| !chain.spaces.contains_key(*id);
        if let Some(id) = self.spaces.keys().find(unknown) {
            return Err(format!("it holds `{id}`, which is no target of this chain"));
        }
        let missing = |id: &&TargetId| !self.spaces.contains_key(*id);
        match chain.spaces.keys().find(missing) {
            Some(id) => Err(format!("it lacks `{id}`, which is a target of this chain")),
            None => Ok(()),
        }
    }
    /// Every setting of the algorithms and of the evaluator's seed that the chain has otherwise, by
    /// the position of the algorithm; that of the seed comes last.
    pub fn differences(&self, chain: &AnyChain) -> Result<Vec<Vec<Difference>>, Error> {
        let names = chain.algorithms();
        let mut found = Vec::new();
        for (index, saved) in self.algorithms.iter().enumerate() {
            let algorithm = &chain.algorithms[index];
            let name = algorithm.name();
            let same = |other: &&&str| **other == name;
            let label = match names.iter().filter(same).count() {
                1 => name.to_string(),
                _ => format!("{name} at position {index}"),
            };
            let now = algorithm.configuration().map_err(Error::met_by(name))?;
            found.push(now.differences(&saved.configuration, &label));
        }
        let seed = |seed: Option<u64>| Configuration::default().with("seed", &seed);
        let now = seed(chain.evaluator.seed());
        found.push(now.differences(&seed(self.seed), "evaluator"));
        Ok(found)
    }
}
