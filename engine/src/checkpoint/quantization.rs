//! `quantization_config`: whether weights are packed, and what their scale means.
//!
//! `linear_class` decides: with `autobitlinear` a weight is its code *times* `weight_scale`; with `bitlinear`, or without the
//! key, it is the code *divided* by it. Nothing else in a checkpoint tells: a number near 1 may be either. Source:
//! `BitNetQuantConfig`, `BitLinear` and `AutoBitLinear` of `transformers`.

use super::CheckpointError;
use super::config::Object;
use super::error::{config, unsupported};

/// What is said of the matrices of the blocks.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Quantization {
    /// A packed weight is its code times the scale; else divided by it.
    pub(super) multiplies: bool,
    /// The checkpoint has the masters, which are quantised when they are loaded.
    pub(super) online: bool,
    /// The epsilon of the norm `X.rms_norm` before every matrix, if there is one.
    pub(super) norm_before: Option<f64>,
    /// Modules that stay as they are.
    exempt: Vec<String>,
}

impl Quantization {
    /// Reads the key, if config.json has it.
    ///
    /// # Errors
    /// Another method than BitNet's, or unknown values.
    pub(super) fn read(config_json: Object<'_>) -> Result<Option<Self>, CheckpointError> {
        let Some(object) = config_json.object("quantization_config", "quantization_config.")? else { return Ok(None) };
        match object.text("quant_method")? {
            Some("bitnet") => {}
            other => return Err(unsupported(format!("weights quantised by `{}`", other.unwrap_or("?")))),
        }
        let multiplies = match object.text("linear_class")? {
            Some("autobitlinear") => true,
            None | Some("bitlinear") => false,
            Some(other) => {
                let why = format!(
                    "is `{other}`; whether the scale multiplies or divides is known of autobitlinear and bitlinear"
                );
                return Err(config("quantization_config.linear_class", why));
            }
        };
        let online = match object.text("quantization_mode")? {
            None | Some("offline") => false,
            Some("online") => true,
            Some(other) => return Err(config("quantization_config.quantization_mode", format!("is `{other}`"))),
        };
        let eps = object.float("rms_norm_eps")?.unwrap_or(1e-6);
        let norm_before = object.flag("use_rms_norm")?.unwrap_or(false).then_some(eps);
        let exempt = object.texts("modules_to_not_convert")?.unwrap_or_default();
        Ok(Some(Self { multiplies, online, norm_before, exempt: exempt.into_iter().map(str::to_owned).collect() }))
    }

    /// Whether a module (a tensor's name without `.weight`) is one of those that stay as they are: by its whole name, or by
    /// names of it in a row.
    pub(super) fn exempts(&self, module: &str) -> bool {
        let module = format!(".{module}.");
        self.exempt.iter().any(|name| module.contains(&format!(".{name}.")))
    }

    /// The factor of a packed matrix.
    pub(super) fn factor(&self, weight_scale: f32) -> f32 {
        if self.multiplies { weight_scale } else { 1.0 / weight_scale }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(inner: serde_json::Value) -> Result<Option<Quantization>, CheckpointError> {
        Quantization::read(Object::new(&json!({ "quantization_config": inner })))
    }

    #[test]
    fn the_class_decides_what_the_scale_means() {
        for (class, factor) in [(Some("autobitlinear"), 4.0), (Some("bitlinear"), 0.25), (None, 0.25)] {
            let found = read(json!({ "quant_method": "bitnet", "linear_class": class })).unwrap().unwrap();
            assert_eq!(found.factor(4.0), factor, "{class:?}");
            assert!(!found.online && found.norm_before.is_none());
        }
        let unknown = read(json!({ "quant_method": "bitnet", "linear_class": "other" })).unwrap_err().to_string();
        assert!(unknown.contains("linear_class") && unknown.contains("`other`"), "{unknown}");
        assert!(read(json!({ "quant_method": "gptq" })).unwrap_err().to_string().contains("gptq"));
        assert!(Quantization::read(Object::new(&json!({}))).unwrap().is_none());
    }

    #[test]
    fn modules_stay_by_name() {
        let inner = json!({ "quant_method": "bitnet", "modules_to_not_convert": ["lm_head", "mlp.down_proj"] });
        let found = read(inner).unwrap().unwrap();
        assert!(found.exempts("lm_head") && found.exempts("model.layers.3.mlp.down_proj"));
        assert!(!found.exempts("model.layers.3.mlp.up_proj") && !found.exempts("model.layers.3.xmlp.down_proj"));
    }
}
