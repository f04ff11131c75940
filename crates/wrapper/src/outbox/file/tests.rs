use super::*;

#[test]
fn p7_a_tail_torn_at_any_byte_costs_what_was_torn_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let mut files = begun(dir.path());
    let first = files.append(&[(1, b"one".to_vec())], false).unwrap();
    let whole = files.segment_len();
    files.append(&[(2, b"two".to_vec()), (3, b"three".to_vec())], false).unwrap();
    let path = files.last().1.path.clone();
    drop(files);
    let bytes = fs::read(&path).unwrap();
    for len in whole..bytes.len() as u64 {
        fs::write(&path, &bytes[..usize::try_from(len).unwrap()]).unwrap();
        let (mut files, records) = Files::open(dir.path()).unwrap();
        let numbers: Vec<_> = records.iter().filter_map(Record::number).collect();
        assert!(numbers == [1] || numbers == [1, 2], "{len}: {numbers:?}");
        assert_eq!(files.read(first[0]).unwrap(), b"one");
        let next = files.append(&[(9, b"next".to_vec())], true).unwrap();
        assert_eq!(files.read(next[0]).unwrap(), b"next", "{len}");
        drop(files);
        let (_files, records) = Files::open(dir.path()).unwrap();
        assert_eq!(records.iter().filter_map(Record::number).next_back(), Some(9), "{len}");
    }
}

#[test]
fn p11_a_flipped_bit_in_any_byte_takes_one_record_at_most_and_yields_no_wrong_one() {
    let header = Header { producer: "p".parse().unwrap(), next: 1, acked: 0, replaces: false };
    let mut bytes = Vec::new();
    put(&mut bytes, HEADER, &[&serde_json::to_vec(&header).unwrap()]);
    for number in 1..4 {
        put_event(&mut bytes, (1, 0), number, b"text");
    }
    let whole: Vec<_> = read_segment(1, &bytes).0;
    for at in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[at / 8] ^= 1 << (at % 8);
        let (records, _) = read_segment(1, &damaged);
        assert!(records.iter().all(|record| whole.contains(record)), "bit {at}");
        assert!(records.len() < whole.len(), "bit {at}");
    }
}

#[test]
fn p7_what_is_acked_is_gone_and_need_not_be_written_down_as_acked() {
    let dir = tempfile::tempdir().unwrap();
    let mut files = begun(dir.path());
    files.append(&[(1, b"one".to_vec()), (2, b"two".to_vec())], false).unwrap();
    files.begin(&header(3)).unwrap();
    files.append(&[(3, b"three".to_vec())], false).unwrap();
    let without = files.segment_len();
    files.ack(2).unwrap();
    assert_eq!(files.segments.len(), 1);
    // As if there had been no room for the ack.
    let path = files.last().1.path.clone();
    drop(files);
    OpenOptions::new().write(true).open(path).unwrap().set_len(without).unwrap();
    let (_files, records) = Files::open(dir.path()).unwrap();
    assert!(matches!(&records[0], Record::Header(header) if header.next == 3), "3 is the first that waits");
    assert_eq!(records.iter().filter_map(Record::number).collect::<Vec<_>>(), [3]);
}

#[test]
fn p7_a_full_disk_stops_no_ack_and_any_other_failure_does() {
    for kind in [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded] {
        assert!(if_there_is_room(Err(kind.into())).is_ok(), "{kind}");
    }
    assert!(if_there_is_room(Err(io::ErrorKind::ReadOnlyFilesystem.into())).is_err());
}

#[test]
fn a_segment_that_replaces_others_is_all_that_counts() {
    let dir = tempfile::tempdir().unwrap();
    let mut files = begun(dir.path());
    files.append(&[(1, b"old".to_vec())], false).unwrap();
    let old = fs::read(&files.last().1.path).unwrap();
    let old_path = files.last().1.path.clone();
    files.replace(&header(7), &[(7, b"new".to_vec())]).unwrap();
    drop(files);
    // As if it had died between the rename and the removal.
    fs::write(old_path, old).unwrap();
    let (files, records) = Files::open(dir.path()).unwrap();
    assert_eq!(records.iter().filter_map(Record::number).collect::<Vec<_>>(), [7]);
    assert_eq!(files.segments.len(), 1);
}

#[test]
fn acked_segments_are_given_back_to_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let mut files = begun(dir.path());
    for number in 1..4 {
        files.append(&[(number, vec![b'x'; 1000])], false).unwrap();
        files.begin(&header(number + 1)).unwrap();
    }
    files.ack(2).unwrap();
    assert_eq!(files.segments.len(), 2);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3, "two segments and the lock");
}

#[test]
fn a_folder_in_use_is_refused_and_free_again_afterwards() {
    let dir = tempfile::tempdir().unwrap();
    let files = begun(dir.path());
    assert!(matches!(Files::open(dir.path()), Err(OutboxError::InUse { .. })));
    drop(files);
    assert!(Files::open(dir.path()).is_ok());
}

#[test]
fn its_files_are_for_the_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let mut files = begun(&dir.path().join("outbox"));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&files.last().1.path.clone()), mode(&dir.path().join("outbox"))), (0o600, 0o700));
}

fn begun(dir: &Path) -> Files {
    let (mut files, records) = Files::open(dir).unwrap();
    assert_eq!(records, []);
    files.begin(&header(1)).unwrap();
    files
}

fn header(next: u64) -> Header {
    Header { producer: "p".parse().unwrap(), next, acked: 0, replaces: false }
}
