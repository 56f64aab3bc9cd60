/*
 * commands.c - the commands of refuge and their options, as two tables
 *
 * The parser, every --help and doc/refuge.1 are made from these rows (args.c). After a change run
 * scripts/manual, which writes the tables into the manual pages; a test compares.
 */
#include "cmd/cli.h"

#define INDEX_NAME_TEXT "NAME is the index (default: main)."
#define REF_TEXT                                                                                  \
    "REF is a blobref, or its beginning (at least 6 hex digits) when only one blob starts so."

const struct rf_command rf_commands[] = {
    {.name = "init",
     .arguments = "",
     .help = "make a home: configuration, store, folder of indexes, folder of mappers",
     .text =
         "The home is the folder of --home, else $REFUGE_HOME, else $XDG_DATA_HOME/refuge, else "
         "~/.local/share/refuge. Only its owner may look into it.",
     .examples = "refuge init\tmake the home in its usual place\n"
                 "refuge init --home /srv/refuge\tmake it somewhere else\n",
     .run = cmd_init,
     .homeless = true},
    {.name = "put",
     .arguments = "FILE|FOLDER|-...",
     .help = "store files, or standard input, and print their blobrefs",
     .text =
         "A FILE is stored as a file blob (name, time, mode) whose content is joined from parts. "
         "A FOLDER stands for every regular file in it, in sorted order; what else it holds "
         "(symlinks, fifos, sockets, devices) is skipped and counted. \"-\" stores standard input "
         "as a bare blob without a name. One line is printed for each, when it is durable: the "
         "blobref and the path. --dry-run reads everything and says what is there already.",
     .examples = "refuge put notes.json\tstore one file\n"
                 "refuge put --match '*.json' --match '*.csv' ~/exports\tstore some files of a "
                 "folder\n"
                 "echo '{\"a\":1}' | refuge put -\tstore a bare blob\n",
     .run = cmd_put,
     .min = 1,
     .max = -1},
    {.name = "get",
     .arguments = "REF",
     .help = "write a blob, or the content of a file blob, to standard output",
     .text = REF_TEXT " Every byte is checked: content that does not hash to its blobref is an "
                      "error, and with --output nothing is left behind then. --json needs "
                      "--output, because standard output cannot carry both.",
     .examples = "refuge get sha256-9f2c41 > notes.json\tthe content of a file\n"
                 "refuge get --raw sha256-9f2c41\tthe file blob itself\n",
     .run = cmd_get,
     .min = 1,
     .max = 1},
    {.name = "ls",
     .arguments = "",
     .help = "list the blobs of the store in the order of their blobrefs",
     .examples = "refuge ls --long --items\titems with size and time\n"
                 "refuge ls --prefix sha256-9f\tthose that start so\n",
     .run = cmd_ls},
    {.name = "stat",
     .arguments = "REF...",
     .help = "say what is known about blobs",
     .text = REF_TEXT,
     .examples = "refuge stat sha256-9f2c41\tsize, time, sequence, and the file it is\n",
     .run = cmd_stat,
     .min = 1,
     .max = -1},
    {.name = "delete",
     .arguments = "REF...",
     .help = "delete blobs; indexes remove their rows when they run",
     .text = "Needs whole blobrefs; one that is not there is an error. Deleting a file blob leaves "
             "its content, which other files may share; --content deletes that too, unless another "
             "file holds it. A blob that is content of a file is kept: that is found out by "
             "reading every file blob of the store, and --force does without.",
     .examples = "refuge delete --content REF\tdelete a file and its bytes\n",
     .run = cmd_delete,
     .min = 1,
     .max = -1},
    {.name = "store", .arguments = "", .help = "look after the blob store"},
    {.name = "store verify",
     .arguments = "",
     .help = "read everything and check every hash",
     .text = "With --repair the store is opened for writing: lookup files that are bad are made "
             "again from the log and files that no record names are removed.\n"
             "Exit status 1 when a blob or a change is damaged or missing. What is damaged without "
             "a loss is named too: the next writer makes lookup files again, no blob suffers from "
             "a flaw. Changes in no lookup run are the newest, until their writer ends; where it "
             "was killed, or a lookup file is gone, they are read from the log.",
     .examples = "refuge store verify\tcheck, change nothing\n",
     .run = cmd_store_verify},
    {.name = "store info",
     .arguments = "",
     .help = "identity, range of changes, number and size of blobs",
     .run = cmd_store_info},
    {.name = "store compact",
     .arguments = "",
     .help = "give back the space of deleted blobs",
     .text = "Deletes do this by themselves for segments that are more than half dead. The segment "
             "that is being written, of option store.segment (256 MiB), stays as it is; the space "
             "of large blobs comes back at once.",
     .run = cmd_store_compact},
    {.name = "changes",
     .arguments = "",
     .help = "print the change queue",
     .text =
         "One line for each change, in order: cursor, time, what happened, blobref, size. A put is "
         "an item, a part content of a file; a lift makes an item of a part that was put as a blob "
         "of its own; gone is a put whose blob was deleted and whose "
         "bytes were given back since. A cursor given to --since "
         "continues behind that change. Works while another process writes.",
     .examples = "refuge changes --limit 10\tthe ten oldest changes\n"
                 "refuge changes --since now --follow\twhat happens from now on\n",
     .run = cmd_changes},
    {.name = "index", .arguments = "", .help = "run and look after indexes"},
    {.name = "index run",
     .arguments = "[NAME]",
     .help = "bring an index, or all of them, up to date with the store",
     .text = "Without NAME: every index of the home, each in a process of its own, so that one "
                             "whose sink cannot be reached keeps up none but itself; with --follow "
                             "all at the same time. Where there is none yet, index main is made. "
                             "Items whose mapper fails are set "
                             "aside with their reason and do not stop it (exit status 3). So it "
                             "is with changes that are damaged in the store, which are passed "
                             "over, and with a mapper file that does not load: the version "
                             "before goes on where there is one. And with a mapper whose slow "
                             "calls only "
                             "fail: when they used up the CPU time that option index.slow_budget "
                             "allows, what waits for it stays parked until the next run. With "
                             "--follow mapper files that change while it runs are loaded again at "
                             "once. "
                             "A mapper that changed, or came, maps everything again beside the "
                             "live tables unless a policy says otherwise: forward maps what comes "
                             "from now on and leaves the rows of the version before; since=SEQ, "
                             "since=YYYY-MM-DD[Thh:mm:ss] (UTC) and match= map again, too, what "
                             "changed from then on, files of such a name, or items of a media "
                             "type such as message/rfc822 or image/*, in the background. A part "
                             "is as old as the oldest item that holds it. Which version maps what "
                             "is kept with the index ('index status' shows it), and rebuilds and "
                             "verifies follow it. Without --policy: the policy of 'index create', "
                             "else option index.policy, else full. A mapper that cuts parts, or "
                             "whose tables changed, can only come in full. The first fill of an "
                             "index maps everything.",
     .examples = "refuge index run\tbring all indexes up to date\n"
                 "refuge index run main\tone of them\n"
                 "refuge index run --follow\tgo on for ever\n"
                 "refuge index run --policy since=2026-01-01\twhat is older keeps its rows\n",
     .run = cmd_index_run,
     .max = 1},
    {.name = "index status",
     .arguments = "[NAME]",
     .help = "how far an index is, and what was set aside",
     .text = INDEX_NAME_TEXT " The mapper files are loaded to say which changed, came, went or "
                             "broke since the last run. Exit status 3 when items are set aside.",
     .run = cmd_index_status,
     .max = 1},
    {.name = "index errors",
     .arguments = "[NAME]",
     .help = "items set aside, with the reason and the command that runs each again",
     .text = INDEX_NAME_TEXT " Exit status 3 when there are any.",
     .run = cmd_index_errors,
     .max = 1},
    {.name = "index retry",
     .arguments = "[NAME]",
     .help = "map items that were set aside again at the next run",
     .text = INDEX_NAME_TEXT " One of --all, --mapper or --item is needed.",
     .examples = "refuge index retry --mapper photos\teverything that mapper failed on\n"
                 "refuge index retry --item sha256-9f...\tone item\n",
     .run = cmd_index_retry,
     .max = 1},
    {.name = "index rebuild",
     .arguments = "[NAME]",
     .help = "map everything again beside the live tables, then swap",
     .text = INDEX_NAME_TEXT " Queries go on meanwhile. A rebuild that was stopped goes on at the "
                             "next run. Where a policy left items to older versions of a mapper "
                             "they are mapped by those, unless --full is given.",
     .run = cmd_index_rebuild,
     .max = 1},
    {.name = "index verify",
     .arguments = "[NAME]",
     .help = "map everything again into a throw-away index and compare",
     .text = INDEX_NAME_TEXT " Prints a line for each difference and fails when there is one. "
                             "Left out and counted apart is what hit a limit, which may differ "
                             "from machine to machine, and what waits for the slow lane. The "
                             "throw-away index stands beside the index, or in $TMPDIR (else /tmp) "
                             "when that folder cannot be written or is full. With --sample only "
                             "some blobs and files are mapped again, and what the index says of "
                             "them and the parts below them is compared. A sample does not find "
                             "what is wrong with any other item, nor rows of items that should "
                             "not be there at all; and where a policy keeps several versions of a "
                             "mapper it leaves out what that mapper made of parts. The full text "
                             "and the database itself are looked at as a whole.",
     .run = cmd_index_verify,
     .max = 1},
    {.name = "index digest",
     .arguments = "[NAME...]",
     .help = "a hash of all that an index says, equal in indexes that say the same",
     .text = "Without NAME: of every index. It covers items, rows, parts, needs and what was set "
             "aside, in a fixed order, and not the kind of the sink, ids, times of mapping and how "
             "far the index is; left out is what 'index verify' leaves out. Reads all of the index "
             "and maps nothing.",
     .examples = "refuge index digest main team\tare the two the same?\n",
     .run = cmd_index_digest,
     .max = -1},
    {.name = "index why",
     .arguments = "REF|PATH [NAME]",
     .help = "what became of a blob or file in an index, mapper by mapper",
     .text = REF_TEXT " PATH is a local file that was put, or the name of one; a symlink stands "
                      "for its target too. Where a mapper has nothing of the item it is run once "
                      "more, to say whether its match takes it and what it emits. " INDEX_NAME_TEXT,
     .examples = "refuge index why notes.json\twhich rows it has, or why it has none\n",
     .run = cmd_index_why,
     .min = 1,
     .max = 2},
    {.name = "index wait",
     .arguments = "[NAME]",
     .help = "wait until an index has reached what the store holds now",
     .text = INDEX_NAME_TEXT " Then a query finds what was put before. What the mappers failed on, "
                             "or what waits for the slow lane or for blobs, is passed by: 'index "
                             "status' counts it. Says who writes the index. Exit status 1 when the "
                             "time is up, when nobody writes the index (for a second: a run that "
                             "loads changed mapper files lets go for a moment), and when it is "
                             "paused.",
     .examples = "refuge put note.json && refuge index wait\tthen ask, while another process runs "
                 "'index run --follow'\n"
                 "refuge index wait --timeout 0\tis it there already?\n",
     .run = cmd_index_wait,
     .max = 1},
    {.name = "index pause",
     .arguments = "[NAME]",
     .help = "let runs of an index do nothing until resumed",
     .text = INDEX_NAME_TEXT " A run that is under way ends after its batch at hand, one with "
                             "--follow lets go of the index and waits to be resumed. When this "
                             "command ends nothing writes the index.",
     .run = cmd_index_pause,
     .max = 1},
    {.name = "index resume",
     .arguments = "[NAME]",
     .help = "undo a pause",
     .text = INDEX_NAME_TEXT,
     .run = cmd_index_resume,
     .max = 1},
    {.name = "index create",
     .arguments = "NAME",
     .help = "make one more index, with mappers and a sink of its own",
     .text = "URL is sqlite:PATH. Or it is postgresql://[USER@]HOST[:PORT]/DATABASE[?PARAMETERS]"
             "[#SCHEMA], with any parameter of libpq but a password: that stands in ~/.pgpass or "
             "in the file of '?passfile=FILE'. The schema is the index's name when none is "
             "given, and belongs to the index. Or it is elasticsearch+http[s]://[USER@]HOST:PORT"
             "[?PARAMETERS][#PREFIX] (opensearch+... likewise): '<prefix>-<table>' is an alias to "
             "the rows of a table, and nobody else may have indexes of that prefix. Its parameters "
             "are 'passfile=FILE', a file with USER:PASSWORD, "
             "'apikeyfile=FILE', 'cafile=FILE', 'replicas=N' and 'proxy=URL', joined by '&', files "
             "by their whole path. What is said here is kept in "
             "conf.d/index-NAME.json of the home; 'index drop' removes both. Two indexes of a home "
             "cannot share a place, whatever it is called.",
     .examples = "refuge index create recipes --mapper recipes.lua\tone mapper, in the home\n"
                 "refuge index create shared --sink sqlite:/srv/shared.db\tin a place of its own\n"
                 "refuge index create team --sink postgresql://ada@db/notes\tin a server\n"
                 "refuge index create web --sink elasticsearch+http://localhost:9200\tin a search "
                 "engine\n",
     .run = cmd_index_create,
     .min = 1, .max = 1},
    {.name = "index list",
     .arguments = "",
     .help = "the indexes of this home",
     .run = cmd_index_list},
    {.name = "index drop",
     .arguments = "NAME",
     .help = "remove an index; the store keeps everything it was made from",
     .text = "Where conf.d/index-NAME.json cannot be read, that file is removed and nothing else. "
             "--forget is the way out when a server is gone for good: nothing is asked of it, and "
             "what it still holds of the index, which is said, stays there.",
     .examples = "refuge index drop team\tin its server, too\n"
                 "refuge index drop team --forget\tleaves the server alone\n",
     .run = cmd_index_drop,
     .min = 1,
     .max = 1},
    {.name = "mapper", .arguments = "", .help = "write, check and test mappers"},
    {.name = "mapper new",
     .arguments = "NAME",
     .help = "write the beginning of a mapper into the home's folder of mappers",
     .examples = "refuge mapper new recipes\tmakes mappers/recipes.lua, used by the next run\n",
     .run = cmd_mapper_new,
     .min = 1,
     .max = 1},
    {.name = "mapper check",
     .arguments = "[FILE...]",
     .help = "load mappers in the jail and check what they declare",
     .text = "Without FILE: every mapper the indexes use.",
     .run = cmd_mapper_check,
     .max = -1},
    {.name = "mapper run",
     .arguments = "FILE REF|PATH",
     .help = "map one blob or local file and print its rows; no index is touched",
     .text = "FILE is a mapper file, or the name of one that the indexes use. " REF_TEXT
             " PATH is a local file, put or not. Mappers cut some items into parts, records of a "
             "file for instance, and each part is mapped as an item of its own; --part takes one. "
             "Exit status 3 when the mapper fails.",
     .examples =
         "refuge mapper run recipes.lua cake.json --trace\tshow each emit and helper call\n"
         "refuge mapper run recipes.lua recipes.json --part 2\tthe second record of a file\n",
     .run = cmd_mapper_run,
     .min = 2,
     .max = 2},
    {.name = "mapper test",
     .arguments = "[FILE...]",
     .help = "run the tests that mappers declare",
     .text = "Prints TAP: ok and not ok, with the rows that differ. Without FILE: every mapper the "
             "indexes use.",
     .run = cmd_mapper_test,
     .max = -1,
     .homeless = true},
    {.name = "mapper diff",
     .arguments = "OLD|running NEW",
     .help = "say what a new version of a mapper would change; nothing is written",
     .text = "OLD and NEW are mapper files, or names of mappers that the indexes use; 'running' is "
             "the version of NEW that the index keeps. Items of the store that either takes are "
             "mapped with both: files, blobs, and the parts that mappers in use cut out of them "
             "(one that several items hold counts for each). An item and its parts are at most a "
             "tenth of the sample. Printed are the first ten differences, --json prints all, then "
             "rows added, removed and changed by table, and items that change, fail newly or no "
             "more. A row that only moved did not change. Exit status 3 when an item fails newly "
             "or cannot be read.",
     .examples = "refuge mapper diff running mappers/recipes.lua\tbefore the next run takes it\n"
                 "refuge mapper diff old.lua new.lua --sample 0 --json\teverything\n",
     .run = cmd_mapper_diff,
     .min = 2,
     .max = 2},
    {.name = "mapper list",
     .arguments = "",
     .help = "the mappers the indexes use",
     .run = cmd_mapper_list},
    {.name = "sql",
     .arguments = "[QUERY]",
     .help = "ask an index by SQL, read-only",
     .text = "Without QUERY: a shell on a terminal, sqlite3 or psql, else the query is read from "
             "standard input. Commands of that shell (.tables) are no SQL and work only there. "
             "psql is that of the role in the sink's URL, who owns the index: its transactions "
             "only read until somebody types SET default_transaction_read_only = off, which is a "
             "deliberate act. What binds is a role of its own: connect as the one of 'index "
             "create --reader', which may only read. On a "
             "terminal columns are cut to its width. With --json equal names of columns are "
             "numbered: n, n_2, n_3.",
     .examples = "refuge sql 'select * from blobs limit 5'\ta table\n"
                 "refuge sql --csv 'select key, value from record' > record.csv\tfor a "
                 "spreadsheet\n",
     .run = cmd_sql,
     .max = 1,
     .rows = true},
    {.name = "search",
     .arguments = "WORDS...",
     .help = "full-text search over every search column",
     .text = "All words must occur. \"a phrase\" in double quotes, pref* for a beginning, -word "
             "leaves hits out. When there is no hit, the last word is taken as a beginning, unless "
             "it is a phrase or one to leave out.",
     .examples = "refuge search coffee grinder\tboth words\n"
                 "refuge search '\"coffee grinder\"' -broken\tthe phrase, without the word\n",
     .run = cmd_search,
     .min = 1,
     .max = -1,
     .dash_words = true,
     .rows = true},
    {.name = "status",
     .arguments = "",
     .help = "store and indexes at a glance",
     .text = "Exit status 3 when an index has items set aside.",
     .run = cmd_status},
    {.name = "config", .arguments = "", .help = "look at the configuration"},
    {.name = "config check",
     .arguments = "",
     .help = "check refuge.conf and conf.d",
     .run = cmd_config_check},
    {.name = "config show",
     .arguments = "",
     .help = "every option with its value",
     .text = "Environment variables REFUGE_SECTION__OPTION override the file.",
     .run = cmd_config_show},
    {.name = "doctor",
     .arguments = "",
     .help = "check that everything is in order, and say what to do where it is not",
     .text = "A line for each check: ok, warn or fail. Looks at the home, the configuration, the "
             "room on the disk, the store (its oldest and newest changes; 'refuge store verify' "
             "reads all of it), the jail, every mapper and every index. Exit status 1 when a check "
             "fails.",
     .run = cmd_doctor,
     .homeless = true},
    {.name = "help",
     .arguments = "[COMMAND...]",
     .help = "say what a command does and which options it takes",
     .run = cmd_help,
     .max = 2,
     .homeless = true},
};
const size_t rf_command_count = sizeof rf_commands / sizeof rf_commands[0];

#define STORE_WRITERS "put,delete,store compact,store verify"
#define INDEX_WRITERS "index run,index retry,index rebuild,index drop"

const struct rf_cli_option rf_cli_options[] = {
    /* every command */
    {"", "home", 0, RF_CLI_TEXT, "DIR", NULL, "the home to use"},
    {"", "json", 0, RF_CLI_FLAG, NULL, NULL,
     "print one JSON object a line, a summary last"},
    {"", "quiet", 'q', RF_CLI_FLAG, NULL, NULL, "no words and no progress, only errors"},
    {"", "help", 'h', RF_CLI_FLAG, NULL, NULL, "say what the command does"},
    {"", "version", 'V', RF_CLI_FLAG, NULL, NULL, "print the version"},

    {STORE_WRITERS, "wait", 0, RF_CLI_NUMBER, "SECONDS", "10",
     "how long to wait while another process writes the store"},
    {INDEX_WRITERS, "wait", 0, RF_CLI_NUMBER, "SECONDS", "0",
     "how long to wait while another process writes the index"},
    {"index pause", "wait", 0, RF_CLI_NUMBER, "SECONDS", "10",
     "how long to wait for a run to finish its batch"},
    {"put,delete,init,index retry,index drop,mapper new", "dry-run", 'n', RF_CLI_FLAG, NULL,
     NULL, "say what would be done, change nothing"},
    {"index drop", "forget", 0, RF_CLI_FLAG, NULL, NULL,
     "only forget it here; what its sink holds stays"},

    {"put", "match", 'm', RF_CLI_LIST, "GLOB", NULL,
     "of folders only files whose name matches; status 1 when nothing does"},
    {"put", "jobs", 'j', RF_CLI_NUMBER, "N", "32", "files stored at the same time, 1 to 256"},

    {"get", "output", 'o', RF_CLI_TEXT, "FILE", NULL,
     "write to FILE, complete or not at all (a device or pipe: through it); -: standard output"},
    {"get", "raw", 0, RF_CLI_FLAG, NULL, NULL, "a file blob itself, not the file's content"},

    {"ls", "prefix", 0, RF_CLI_TEXT, "REF", NULL, "only blobrefs that start so"},
    {"ls", "long", 'l', RF_CLI_FLAG, NULL, NULL, "with size, time, and whether it is a part"},
    {"ls", "items", 0, RF_CLI_FLAG, NULL, NULL, "without the parts that file contents consist of"},

    {"ls,changes,index errors", "limit", 0, RF_CLI_NUMBER, "N", "0",
     "stop after so many; 0: no limit"},
    {"search", "limit", 0, RF_CLI_NUMBER, "N", "20",
     "stop after so many; 0: the most, 100000"},

    {"delete", "content", 0, RF_CLI_FLAG, NULL, NULL,
     "also the content of a file that no other file holds"},

    {"delete", "force", 0, RF_CLI_FLAG, NULL, NULL,
     "without looking for files that hold it; their content is lost then"},

    {"store verify", "repair", 0, RF_CLI_FLAG, NULL, NULL, "mend what can be made again"},

    {"changes", "since", 0, RF_CLI_TEXT, "CURSOR", "0",
     "start behind this change; 0: the oldest, now: the newest"},
    {"changes,index run", "follow", 'f', RF_CLI_FLAG, NULL, NULL,
     "wait for more and go on until stopped"},

    {"index retry,index errors", "mapper", 0, RF_CLI_TEXT, "NAME", NULL, "only of this mapper"},
    {"index retry,index errors", "item", 0, RF_CLI_TEXT, "REF", NULL,
     "only this item: its blobref or the beginning of it"},
    {"index retry", "all", 0, RF_CLI_FLAG, NULL, NULL, "everything that was set aside"},

    {"index wait", "seq", 0, RF_CLI_NUMBER, "SEQ", NULL,
     "the change to reach; default: the newest of the store"},
    {"index wait", "timeout", 0, RF_CLI_NUMBER, "SECONDS", NULL,
     "give up after so long; default: wait while somebody writes the index"},

    {"index create", "sink", 0, RF_CLI_TEXT, "URL", NULL,
     "where its rows go; default: a file in the home"},
    {"index create", "reader", 0, RF_CLI_TEXT, "ROLE", NULL,
     "a role of the PostgreSQL server that may read the tables"},
    {"index run,index create", "policy", 0, RF_CLI_TEXT, "POLICY", NULL,
     "what a mapper that changed or came does with what is there: full, forward, since=SEQ|DATE, "
     "match=NAME|MEDIA"},
    {"index verify", "sample", 0, RF_CLI_NUMBER, "N", "0",
     "only so many blobs and files, drawn at random, and the parts below them; 0: all"},
    {"index verify", "seed", 0, RF_CLI_NUMBER, "SEED", NULL,
     "draw the sample that this number stands for; default: another each time"},
    {"index rebuild", "full", 0, RF_CLI_FLAG, NULL, NULL,
     "with the newest mappers alone: forget which version maps what"},
    {"index create", "mapper", 'm', RF_CLI_LIST, "FILE", NULL,
     "a mapper it uses, instead of all of the home"},

    {"mapper run", "index", 0, RF_CLI_TEXT, "NAME", "main",
     "the index that knows the part, when REF is one of its items"},
    {"mapper run", "part", 0, RF_CLI_NUMBER, "N", NULL,
     "the Nth part, from 1, that FILE and the mappers in use cut out of it"},
    {"mapper run", "trace", 0, RF_CLI_FLAG, NULL, NULL, "show each emit and helper call"},
    {"mapper diff", "sample", 0, RF_CLI_NUMBER, "N", "200",
     "compare so many items; 0: all of the store"},
    {"mapper diff", "seed", 0, RF_CLI_NUMBER, "SEED", NULL,
     "draw the sample that this number stands for; default: another each time"},
    {"mapper diff", "index", 0, RF_CLI_TEXT, "NAME", "main",
     "the index that 'running' is asked of, and whose mappers cut items up"},
    {"mapper test", "update", 0, RF_CLI_FLAG, NULL, NULL,
     "write the rows of tests with a golden file into it"},
    {"mapper new", "force", 0, RF_CLI_FLAG, NULL, NULL, "replace a mapper that is there"},

    {"sql,search", "index", 0, RF_CLI_TEXT, "NAME", "main", "the index to ask"},
    {"sql", "csv", 0, RF_CLI_FLAG, NULL, NULL, "print CSV (RFC 4180 with LF) with a header"},
    {"search", "table", 0, RF_CLI_TEXT, "NAME", NULL, "only this table"},

    {"config show", "origin", 0, RF_CLI_FLAG, NULL, NULL, "also where each value comes from"},

    {"help", "mdoc", 0, RF_CLI_FLAG, NULL, NULL, "print what the manual page holds"},
};
const size_t rf_cli_option_count = sizeof rf_cli_options / sizeof rf_cli_options[0];
