use super::*;

#[test]
fn the_start_time_is_found_behind_a_name_with_spaces_and_parentheses() {
    let stat = |state: &str| {
        format!("7 (a) b (c) {state} 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 98765 11 12\n")
    };
    assert_eq!(ticks_of_stat(&stat("S")), Some(98765));
    assert_eq!(ticks_of_stat(&stat("Z")), None);
    assert_eq!(ticks_of_stat("7 (a"), None);
}

#[test]
fn this_process_has_a_start_time_and_a_free_pid_has_none() {
    assert!(process_ticks(std::process::id() as i32).is_some());
    assert_eq!(process_ticks(i32::MAX), None);
}

#[test]
fn a_file_is_replaced_whole_and_leaves_nothing_next_to_it() {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), "x.json", &vec![1, 2]).unwrap();
    write_durably(directory.path(), "x.json", &vec![3]).unwrap();
    assert_eq!(read::<Vec<i32>>(directory.path(), "x.json").unwrap(), vec![3]);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}
