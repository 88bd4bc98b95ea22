//! Writes small GGUF files for tests, also such as no converter would write.
#![allow(dead_code, reason = "each test binary uses its own part")]

/// A metadata value.
#[derive(Debug, Clone)]
pub enum Meta {
    Bool(bool),
    U32(u32),
    F32(f32),
    Text(String),
    Texts(Vec<String>),
    Floats(Vec<f32>),
    Integers(Vec<i32>),
    /// A type number and the bytes after it, as they are.
    Raw(u32, Vec<u8>),
}

impl Meta {
    pub fn text(text: &str) -> Self {
        Self::Text(text.to_owned())
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Bool(truth) => tagged(out, 7, &[u8::from(*truth)]),
            Self::U32(number) => tagged(out, 4, &number.to_le_bytes()),
            Self::F32(number) => tagged(out, 6, &number.to_le_bytes()),
            Self::Text(text) => tagged(out, 8, &string(text)),
            Self::Texts(texts) => array(out, 8, texts.len(), texts.iter().flat_map(|text| string(text))),
            Self::Floats(numbers) => {
                array(out, 6, numbers.len(), numbers.iter().flat_map(|n| n.to_le_bytes()))
            }
            Self::Integers(numbers) => {
                array(out, 5, numbers.len(), numbers.iter().flat_map(|n| n.to_le_bytes()))
            }
            Self::Raw(kind, bytes) => tagged(out, *kind, bytes),
        }
    }
}

fn tagged(out: &mut Vec<u8>, kind: u32, bytes: &[u8]) {
    out.extend(kind.to_le_bytes());
    out.extend(bytes);
}

fn array(out: &mut Vec<u8>, kind: u32, count: usize, bytes: impl Iterator<Item = u8>) {
    tagged(out, 9, &kind.to_le_bytes());
    out.extend((count as u64).to_le_bytes());
    out.extend(bytes);
}

/// A text with its length before it.
pub fn string(text: &str) -> Vec<u8> {
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend(text.as_bytes());
    bytes
}

/// A tensor as the header declares it; the data are zeros.
#[derive(Debug, Clone)]
pub struct TensorHeader {
    pub name: String,
    pub dimensions: Vec<u64>,
    pub kind: u32,
    pub offset: u64,
}

/// A file in the making.
#[derive(Debug, Clone)]
pub struct GgufFile {
    pub magic: [u8; 4],
    pub version: u32,
    pub tensor_count: Option<u64>,
    pub pair_count: Option<u64>,
    pub pairs: Vec<(String, Meta)>,
    pub tensors: Vec<TensorHeader>,
    pub data_bytes: usize,
}

impl GgufFile {
    pub fn new() -> Self {
        Self {
            magic: *b"GGUF",
            version: 3,
            tensor_count: None,
            pair_count: None,
            pairs: Vec::new(),
            tensors: Vec::new(),
            data_bytes: 0,
        }
    }

    /// Adds a pair, or replaces the one of that key.
    pub fn with(mut self, key: &str, value: Meta) -> Self {
        self.pairs.retain(|(name, _)| name != key);
        self.and(key, value)
    }

    /// Adds a pair whatever is there.
    pub fn and(mut self, key: &str, value: Meta) -> Self {
        self.pairs.push((key.to_owned(), value));
        self
    }

    pub fn without(mut self, key: &str) -> Self {
        self.pairs.retain(|(name, _)| name != key);
        self
    }

    pub fn tensor(mut self, name: &str, dimensions: &[u64], kind: u32, offset: u64) -> Self {
        self.tensors.push(TensorHeader { name: name.into(), dimensions: dimensions.to_vec(), kind, offset });
        self
    }

    pub fn data(mut self, bytes: usize) -> Self {
        self.data_bytes = bytes;
        self
    }

    /// The header alone.
    pub fn header(&self) -> Vec<u8> {
        let mut out = self.magic.to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend(self.tensor_count.unwrap_or(self.tensors.len() as u64).to_le_bytes());
        out.extend(self.pair_count.unwrap_or(self.pairs.len() as u64).to_le_bytes());
        for (key, value) in &self.pairs {
            out.extend(string(key));
            value.write(&mut out);
        }
        for tensor in &self.tensors {
            out.extend(string(&tensor.name));
            out.extend((tensor.dimensions.len() as u32).to_le_bytes());
            out.extend(tensor.dimensions.iter().flat_map(|length| length.to_le_bytes()));
            out.extend(tensor.kind.to_le_bytes());
            out.extend(tensor.offset.to_le_bytes());
        }
        out
    }

    /// The whole file, its data aligned to 32 bytes.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = self.header();
        out.resize(out.len().next_multiple_of(32) + self.data_bytes, 0);
        out
    }
}
