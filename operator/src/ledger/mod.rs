//! The ledger: what runs used today (UTC, by time of receipt) under each policy. Survives a restart.

mod day;
#[cfg(test)]
mod tests;

pub use day::{Amount, Day, Entry, Origin, date_of};

use crate::store::{Store, StoreError, damaged, segment};
use k8s_openapi::jiff::{Timestamp, ToSpan as _, civil::Date};
use object_store::path::Path;
use sopwith_crds::{status::Usage, tool_policy::Today};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

/// Namespace and name of a policy.
type Policy = (String, String);

/// What runs used today under each policy. Clones share it.
#[derive(Clone)]
pub struct Ledger {
    store: Store,
    days: Arc<Mutex<HashMap<Policy, Day>>>,
}

impl Ledger {
    /// Reads what is known of the day of `now`.
    pub async fn open(store: Store, now: Timestamp) -> Result<Self, StoreError> {
        let date = date_of(now);
        let mut days = HashMap::new();
        for namespace in store.folders(&Path::from("ledger")).await? {
            for policy in store.folders(&namespace).await? {
                let name = |path: &Path| path.filename().unwrap_or_default().to_owned();
                let key = (name(&namespace), name(&policy));
                let mut entries = Vec::new();
                for object in store.list(&policy.join(date.to_string())).await? {
                    entries.extend(read_entry(&store, &object.location).await?);
                }
                days.insert(key, Day::new(date, entries));
            }
        }
        Ok(Self {
            store,
            days: Arc::new(Mutex::new(days)),
        })
    }

    /// Books what a pod says its launch has used since its start. In the store before it returns; safe to repeat.
    ///
    /// `before` is what the pod had reported before today, as far as its batches tell.
    pub async fn book(
        &self,
        namespace: &str,
        policy: &str,
        origin: &Origin,
        used: &Usage,
        before: Amount,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let date = date_of(now);
        let key = (namespace.to_owned(), policy.to_owned());
        let folder = Path::from("ledger")
            .join(segment(namespace)?)
            .join(segment(policy)?);
        let known = self.with_day(&key, date, |day| day.entry(origin).is_some());
        let base = if known {
            before
        } else {
            before.max(self.yesterday(&folder, origin, date).await?)
        };
        let used = Amount::of(used);
        let booking = self.with_day(&key, date, |day| day.booking(origin, base, used));
        let Some(entry) = booking else {
            return Ok(());
        };
        let path = entry_path(&folder, date, origin)?;
        let bytes = serde_json::to_vec(&entry).map_err(|e| damaged(&path, &e))?;
        self.store.overwrite(&path, bytes.into()).await?;
        self.with_day(&key, date, |day| day.put(entry));
        Ok(())
    }

    /// What was used under a policy on the day of `now`.
    pub fn today(&self, namespace: &str, policy: &str, now: Timestamp) -> Today {
        let key = (namespace.to_owned(), policy.to_owned());
        self.with_day(&key, date_of(now), |day| day.today(now))
    }

    /// What the pod had used by the end of yesterday, by yesterday's entry.
    async fn yesterday(
        &self,
        folder: &Path,
        origin: &Origin,
        today: Date,
    ) -> Result<Amount, StoreError> {
        let Ok(yesterday) = today.checked_sub(1.day()) else {
            return Ok(Amount::default());
        };
        let path = entry_path(folder, yesterday, origin)?;
        let entry = read_entry(&self.store, &path).await?;
        Ok(entry.map(|e| e.total).unwrap_or_default())
    }

    fn with_day<T>(&self, key: &Policy, date: Date, act: impl FnOnce(&mut Day) -> T) -> T {
        // Nothing that is done under this lock can panic half-way.
        let mut days = self.days.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = || Day::new(date, []);
        let day = days.entry(key.clone()).or_insert_with(fresh);
        if day.date < date {
            *day = fresh();
        }
        act(day)
    }
}

async fn read_entry(store: &Store, path: &Path) -> Result<Option<Entry>, StoreError> {
    let Some(bytes) = store.read(path).await? else {
        return Ok(None);
    };
    let entry = serde_json::from_slice(&bytes).map_err(|e| damaged(path, &e))?;
    Ok(Some(entry))
}

fn entry_path(folder: &Path, date: Date, origin: &Origin) -> Result<Path, StoreError> {
    let (run, pod) = (segment(&origin.run_uid)?, segment(&origin.pod_uid)?);
    Ok(folder
        .clone()
        .join(date.to_string())
        .join(format!("{run}-{}-{pod}.json", origin.launch)))
}
