//! Setters of quantization rules, for configurations in code.

use burn_compress_core::{QuantDtype, QuantScheme, setters};

use crate::{ApplyMethod, Granularity, ObserverKind, QuantizationSettings};

setters! {
    /// The settings of [`QuantizationSettings`] under the names that they have in a file.
    ///
    /// ```
    /// use burn_compress_core::config::{ConfigList, on};
    /// use burn_compress_quantization::{Granularity, QuantDtype, QuantizationRule};
    ///
    /// let rule = on(["Conv2d", "Linear"])
    ///     .with_target_names(["weight"])
    ///     .quant_dtype(QuantDtype::INT8)
    ///     .granularity(Granularity::OutChannel);
    /// let json = r#"[{
    ///     "op_types": ["Conv2d", "Linear"], "target_names": ["weight"],
    ///     "quant_dtype": "int8", "granularity": "out_channel"
    /// }]"#;
    /// assert_eq!(ConfigList::from(rule), ConfigList::from_json(json)?);
    /// # Ok::<(), burn_compress_core::config::ConfigError>(())
    /// ```
    QuantizationRule for QuantizationSettings {
        /// The integer type.
        quant_dtype: QuantDtype,
        /// How the range is laid over the integers.
        quant_scheme: QuantScheme,
        /// Which values share a scale.
        granularity: Granularity,
        /// How the range follows from the values.
        observer: ObserverKind,
        /// How the quantization acts.
        apply_method: ApplyMethod,
        /// Sequences of layers, by path, that are quantized as one.
        fuse_names: Vec<Vec<String>>,
        /// Whether to find such sequences.
        fuse: bool,
    }
}
