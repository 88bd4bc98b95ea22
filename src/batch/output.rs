//! The files of a batch: answers in the one, refusals and what was not done in the other.

use serde_json::json;

use crate::auth::files::{BATCH_OUTPUT, output_expiry};
use crate::auth::new_id;
use crate::batch::job::{Job, Stop};
use crate::store::batches::{BatchStatus, LineRow, Progress};
use crate::store::files::FileRow;
use crate::store::{FileWriter, batches, files};

/// Lines that are read at once.
const LINES: i64 = 128;

/// Both files, as far as there is something to write.
#[derive(Default)]
struct Files {
    output: Option<FileWriter>,
    errors: Option<FileWriter>,
}

impl Job {
    /// Writes the files of the batch and ends it, as `ending`.
    pub(super) async fn write_files(&self, ending: BatchStatus) -> Result<(), Stop> {
        let mut tx = self.write(Progress::default()).await?;
        files::delete_unfinished_of_batch(&mut tx, &self.batch().id).await?;
        tx.commit().await?;
        let mut written = Files::default();
        // Where not all lines were found right, none was begun.
        if self.batch().times.in_progress_at.is_some() {
            self.write_lines(ending, &mut written).await?;
        }
        let mut tx = self.write(Progress::default()).await?;
        let mut ids = [None, None];
        for (id, file) in ids.iter_mut().zip([written.output, written.errors]) {
            if let Some(file) = file {
                *id = Some(file.finish(&mut tx).await?.id);
            }
        }
        let [output, errors] = &ids;
        let now = self.now();
        batches::end(&mut tx, &self.batch().id, (output.as_deref(), errors.as_deref()), now).await?;
        tx.commit().await?;
        tracing::info!(batch = self.batch().id, status = ending.name(), "a batch is over");
        Ok(())
    }

    async fn write_lines(&self, ending: BatchStatus, written: &mut Files) -> Result<(), Stop> {
        let mut after = 0;
        loop {
            let lines = {
                let mut tx = self.store().read().await?;
                batches::lines(&mut tx, &self.batch().id, after, LINES).await?
            };
            let Some(last) = lines.last() else { return Ok(()) };
            after = last.number;
            for line in lines {
                let (slot, name) = match line.status {
                    Some(200) => (&mut written.output, "output"),
                    _ => (&mut written.errors, "errors"),
                };
                let file = match slot {
                    Some(file) => file,
                    none => none.insert(self.begin_file(name).await?),
                };
                let mut text = line.output.clone().unwrap_or_else(|| undone(&line, ending));
                text.push('\n');
                file.push(text.as_bytes()).await?;
            }
        }
    }

    async fn begin_file(&self, name: &str) -> Result<FileWriter, Stop> {
        let (batch, now) = (self.batch(), self.now());
        let file = FileRow {
            id: new_id("file").replacen('_', "-", 1),
            owner: batch.owner.clone(),
            name: format!("{}_{name}.jsonl", batch.id),
            purpose: BATCH_OUTPUT.to_owned(),
            bytes: 0,
            status: String::new(),
            batch_id: Some(batch.id.clone()),
            created_at: now,
            touched_at: now,
            expires_at: output_expiry(now, batch.order.output_seconds),
        };
        Ok(FileWriter::begin(self.store(), self.clock(), file).await?)
    }
}

/// What is written of a line that was not done.
fn undone(line: &LineRow, ending: BatchStatus) -> String {
    let (code, message) = match ending {
        BatchStatus::Expired => {
            ("batch_expired", "the batch's completion window was over before this request was done")
        }
        BatchStatus::Cancelled => ("batch_cancelled", "the batch was cancelled before this request was done"),
        _ => ("batch_failed", "the batch failed before this request was done"),
    };
    let error = json!({"code": code, "message": message});
    json!({"id": new_id("batch_req"), "custom_id": line.custom_id, "response": null, "error": error})
        .to_string()
}
