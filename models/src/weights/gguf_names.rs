//! GGUF tensor names ↔ Hugging Face names, for the architectures that share Llama's layout. A table, nothing else.

/// GGUF name → Hugging Face name, outside the layers; `.weight` or `.bias` follows.
const OUTSIDE: [(&str, &str); 3] =
    [("token_embd", "model.embed_tokens"), ("output_norm", "model.norm"), ("output", "lm_head")];

/// GGUF name → Hugging Face name, within layer N: `blk.N.` ↔ `model.layers.N.`; `.weight` or `.bias` follows.
const LAYER: [(&str, &str); 11] = [
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("attn_q_norm", "self_attn.q_norm"),
    ("attn_k_norm", "self_attn.k_norm"),
    ("ffn_norm", "post_attention_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];

/// The Hugging Face name of a GGUF tensor; one without a counterpart (`rope_freqs.weight`) keeps its own.
pub(crate) fn hugging_face_name(gguf: &str) -> String {
    translate(gguf).unwrap_or_else(|| gguf.to_owned())
}

fn translate(gguf: &str) -> Option<String> {
    let (stem, suffix) = gguf.rsplit_once('.')?;
    if !matches!(suffix, "weight" | "bias") {
        return None;
    }
    if let Some((layer, part)) = stem.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) {
        let (_, name) = LAYER.iter().find(|(name, _)| *name == part)?;
        layer.parse::<u32>().ok()?;
        return Some(format!("model.layers.{layer}.{name}.{suffix}"));
    }
    let (_, name) = OUTSIDE.iter().find(|(name, _)| *name == stem)?;
    Some(format!("{name}.{suffix}"))
}

#[cfg(test)]
mod tests {
    use super::hugging_face_name;

    #[test]
    fn names_are_translated_or_kept() {
        for (gguf, expected) in [
            ("token_embd.weight", "model.embed_tokens.weight"),
            ("output.weight", "lm_head.weight"),
            ("output_norm.weight", "model.norm.weight"),
            ("blk.17.attn_q.bias", "model.layers.17.self_attn.q_proj.bias"),
            ("blk.0.ffn_norm.weight", "model.layers.0.post_attention_layernorm.weight"),
            ("blk.3.attn_k_norm.weight", "model.layers.3.self_attn.k_norm.weight"),
            ("rope_freqs.weight", "rope_freqs.weight"),
            ("blk.x.attn_q.weight", "blk.x.attn_q.weight"),
            ("blk.0.ssm_a", "blk.0.ssm_a"),
        ] {
            assert_eq!(hugging_face_name(gguf), expected);
        }
    }
}
