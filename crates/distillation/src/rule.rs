//! Rules of distillers, written in code.

use burn_compress_core::setters;

use crate::{Channels, DistillationLoss, DistillationSettings, Link};

setters! {
    /// The settings of [`DistillationSettings`] under the names that they have in a file.
    ///
    /// ```
    /// use burn_compress_core::config::{ConfigList, on};
    /// use burn_compress_distillation::{DistillationLoss, DistillationRule};
    ///
    /// let rule = on(["Conv2d"]).lambda(0.1).apply_method(DistillationLoss::Mse);
    /// let json = r#"[{"op_types": ["Conv2d"], "lambda": 0.1, "apply_method": "mse"}]"#;
    /// assert_eq!(ConfigList::from(rule), ConfigList::from_json(json)?);
    /// # Ok::<(), burn_compress_core::config::ConfigError>(())
    /// ```
    DistillationRule for DistillationSettings {
        /// The weight of the loss.
        lambda: f64,
        /// The teacher's layers to learn from.
        link: Link,
        /// The loss of each link.
        apply_method: DistillationLoss,
        /// Which channels are compared.
        channels: Channels,
        /// The dimension of the hidden state that holds its channels.
        channel_dim: usize,
    }
}
