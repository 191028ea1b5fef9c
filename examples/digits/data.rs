//! The UCI handwritten digits: 1797 real images of 8 x 8.

use std::error::Error;
use std::path::Path;

use flate2::read::GzDecoder;
use xxhash_rust::xxh3::xxh3_64_with_seed;

pub(crate) const SIDE: usize = 8;
pub(crate) const CLASSES: usize = 10;

/// Images, row by row, pixels in 0..=1, and what they show.
pub(crate) struct Digits {
    pub(crate) pixels: Vec<f32>,
    pub(crate) labels: Vec<usize>,
}

impl Digits {
    /// Reads the gzipped CSV that the repository carries: 64 pixels in 0..=16 a line, then the digit.
    pub(crate) fn load() -> Result<Digits, Box<dyn Error>> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data/digits.csv.gz");
        let file = std::fs::File::open(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(GzDecoder::new(file));
        let mut digits = Digits { pixels: Vec::new(), labels: Vec::new() };
        for record in reader.deserialize() {
            let values: Vec<u8> = record?;
            let (&label, pixels) = values.split_last().ok_or("an empty line")?;
            if pixels.len() != SIDE * SIDE || usize::from(label) >= CLASSES || pixels.iter().any(|&p| p > 16)
            {
                return Err(
                    format!("line {} is no image of 8 x 8 with its digit", digits.labels.len() + 1).into()
                );
            }
            digits.pixels.extend(pixels.iter().map(|&p| f32::from(p) / 16.0));
            digits.labels.push(label.into());
        }
        Ok(digits)
    }

    pub(crate) fn len(&self) -> usize {
        self.labels.len()
    }

    /// Every fifth image for the test, the others to learn from.
    pub(crate) fn split(&self) -> (Digits, Digits) {
        let (test, train): (Vec<usize>, Vec<usize>) = (0..self.len()).partition(|i| i % 5 == 4);
        (self.gather(&train), self.gather(&test))
    }

    /// The images of these indices.
    pub(crate) fn gather(&self, indices: &[usize]) -> Digits {
        let image = |&i: &usize| self.pixels[i * SIDE * SIDE..][..SIDE * SIDE].iter().copied();
        Digits {
            pixels: indices.iter().flat_map(image).collect(),
            labels: indices.iter().map(|&i| self.labels[i]).collect(),
        }
    }

    /// The indices in the order of an epoch: sorted by a hash, the same on every machine.
    pub(crate) fn shuffled(&self, epoch: u64) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.len()).collect();
        order.sort_by_key(|&i| random(epoch, i as u64));
        order
    }
}

/// 64 random bits that depend on a stream and a place in it, on nothing else.
pub(crate) fn random(stream: u64, at: u64) -> u64 {
    xxh3_64_with_seed(&at.to_le_bytes(), stream)
}
