//! Text embeddings: an encoder or a decoder, then pooling.
//!
//! Not the layers. Texts are run in packs of a bounded number of tokens; since no text's rows depend on another's, how
//! they are packed changes nothing but the speed.

use std::ops::Range;

use candle_core::Tensor;

use crate::layers::decoder::{Decoder, DecoderConfig};
use crate::layers::encoder::{Encoder, EncoderConfig};
use crate::layers::pooling::SentenceConfig;
use crate::layers::source::Source;
use crate::{Batch, CacheType, Device, Embedder, Error, KvCache, ModelSpec};

/// Most tokens of one pack, unless a single text has more.
const PACK_TOKENS: usize = 2048;

enum Body {
    Encoder(Encoder),
    Decoder(Decoder),
}

/// A model that turns texts into vectors.
pub struct TextEmbedder {
    body: Body,
    sentence: SentenceConfig,
    spec: ModelSpec,
    device: Device,
}

impl TextEmbedder {
    /// Loads an encoder from wherever its prefixes find it below `root`; adds to `spec` what it weighs.
    ///
    /// # Errors
    /// [`Error::MissingTensor`], [`Error::Shape`], or what reading says.
    pub fn of_encoder(
        root: &Source<'_>,
        config: &EncoderConfig,
        sentence: SentenceConfig,
        spec: ModelSpec,
        device: &Device,
    ) -> Result<Self, Error> {
        let source = root.first_with(config.prefixes, "embeddings.word_embeddings.weight");
        let body = Body::Encoder(Encoder::load(&source, config, device.candle())?);
        Ok(Self { body, sentence, spec: weighed(spec, root), device: device.clone() })
    }

    /// Loads a decoder from `model` below `root`, or from `root` itself; adds to `spec` what it weighs.
    ///
    /// # Errors
    /// [`Error::MissingTensor`], [`Error::Shape`], or what reading says.
    pub fn of_decoder(
        root: &Source<'_>,
        config: &DecoderConfig,
        sentence: SentenceConfig,
        spec: ModelSpec,
        device: &Device,
    ) -> Result<Self, Error> {
        let source = root.first_with(&["model", ""], "embed_tokens.weight");
        let body = Body::Decoder(Decoder::load(&source, config, device.candle())?);
        Ok(Self { body, sentence, spec: weighed(spec, root), device: device.clone() })
    }

    /// Hidden states of some texts, `[t, hidden]`, as they are pooled.
    fn hidden(&self, texts: &[Vec<u32>]) -> Result<Tensor, Error> {
        match &self.body {
            Body::Encoder(encoder) => {
                let types: Vec<Vec<u32>> = texts.iter().map(|text| vec![0; text.len()]).collect();
                encoder.forward(texts, &types)
            }
            Body::Decoder(decoder) => self.decode(decoder, texts),
        }
    }

    /// Runs a decoder over a cache that lives for this pass alone.
    fn decode(&self, decoder: &Decoder, texts: &[Vec<u32>]) -> Result<Tensor, Error> {
        let batch = batch_of(texts);
        let blocks = batch.block_tables.iter().map(Vec::len).sum();
        let cache = KvCache::new(&self.spec, blocks, CacheType::F32, &self.device)?;
        let x = decoder.forward(&batch, &cache)?;
        decoder.final_rows(&x, &batch.sample_rows)
    }

    fn check(&self, texts: &[Vec<u32>]) -> Result<(), Error> {
        let limit = self.spec.context_length;
        match texts.iter().find(|text| text.is_empty() || text.len() > limit) {
            Some(text) => {
                Err(Error::Batch(format!("a text of {} tokens; it may have 1 to {limit}", text.len())))
            }
            None => Ok(()),
        }
    }
}

impl Embedder for TextEmbedder {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn embed(&self, sequences: &[Vec<u32>]) -> Result<Vec<Vec<f32>>, Error> {
        self.check(sequences)?;
        let width = self.spec.hidden_size;
        let mut embeddings = Vec::with_capacity(sequences.len());
        for pack in packs(sequences) {
            let texts = &sequences[pack];
            let hidden: Vec<f32> = self.hidden(texts)?.flatten_all()?.to_vec1()?;
            let mut rest = hidden.as_slice();
            for text in texts {
                let (own, after) = rest.split_at(text.len() * width);
                embeddings.push(self.sentence.pool(own, width)?);
                rest = after;
            }
        }
        Ok(embeddings)
    }
}

fn weighed(spec: ModelSpec, root: &Source<'_>) -> ModelSpec {
    ModelSpec { weights_bytes: root.bytes(), ..spec }
}

/// Cuts texts into runs of at most [`PACK_TOKENS`] tokens, each of one text at least.
pub(crate) fn packs(texts: &[Vec<u32>]) -> Vec<Range<usize>> {
    let (mut packs, mut start, mut tokens) = (Vec::new(), 0, 0);
    for (index, text) in texts.iter().enumerate() {
        if index > start && tokens + text.len() > PACK_TOKENS {
            packs.push(start..index);
            (start, tokens) = (index, 0);
        }
        tokens += text.len();
    }
    if start < texts.len() {
        packs.push(start..texts.len());
    }
    packs
}

/// Whole texts in fresh blocks, all rows wanted.
fn batch_of(texts: &[Vec<u32>]) -> Batch {
    let mut batch = Batch { starts: vec![0], ..Batch::default() };
    let mut next_block = 0;
    for text in texts {
        let (tokens, blocks) = (text.len() as u32, text.len().div_ceil(KvCache::BLOCK_SIZE) as u32);
        let first_slot = next_block * KvCache::BLOCK_SIZE as u32;
        batch.token_ids.extend_from_slice(text);
        batch.positions.extend(0..tokens);
        // Blocks are taken in order, so the slots of a text are too.
        batch.slots.extend(first_slot..first_slot + tokens);
        batch.starts.push(batch.token_ids.len() as u32);
        batch.context_lens.push(tokens);
        batch.block_tables.push((next_block..next_block + blocks).collect());
        next_block += blocks;
    }
    batch.sample_rows = (0..batch.token_ids.len() as u32).collect();
    batch
}

#[cfg(test)]
mod tests {
    use super::{PACK_TOKENS, batch_of, packs};

    #[test]
    fn packs_hold_every_text_once_and_not_too_much() {
        let text = |tokens: usize| vec![1; tokens];
        assert!(packs(&[]).is_empty());
        assert_eq!(packs(&[text(5), text(6)]), vec![0..2]);
        let long = [text(PACK_TOKENS), text(1), text(3 * PACK_TOKENS), text(2), text(PACK_TOKENS - 2)];
        assert_eq!(packs(&long), vec![0..1, 1..2, 2..3, 3..5]);
    }

    #[test]
    fn texts_lie_in_blocks_of_their_own() {
        let batch = batch_of(&[vec![1; 33], vec![2; 32], vec![3; 1]]);
        batch.check(4, 33, 4).unwrap();
        assert_eq!(batch.block_tables, vec![vec![0, 1], vec![2], vec![3]]);
    }
}
