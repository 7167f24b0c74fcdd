# Read a run with rhdf5: `Rscript read_run.R RUN` checks digests and identity, and prints a line for each sample.
# Needs rhdf5 (Bioconductor), digest and jsonlite: apt-get install r-bioc-rhdf5 r-cran-digest r-cran-jsonlite
invisible(Sys.setlocale("LC_CTYPE", "C.UTF-8"))
suppressPackageStartupMessages({
  library(rhdf5)
  library(digest)
  library(jsonlite)
})

KNOWN_SCHEMAS <- c(1, 2)
TOLERANCE <- c(fp32 = 1e-4, tf32 = 5e-3, bf16 = 5e-2, fp16 = 1e-2)

sha256 <- function(text) digest(text, algo = "sha256", serialize = FALSE)

refuse <- function(path, reason) {
  message(path, ": ", reason)
  quit(status = 1)
}

# A document's digest is that of its text without spaces between tokens and without itself.
read_document <- function(path) {
  lines <- readLines(path, encoding = "UTF-8")
  bare <- sub("^ *(\"([^\"\\\\]|\\\\.)*\":) ", "\\1", lines, perl = TRUE)
  bare <- sub("^ +", "", bare)
  is_digest <- startsWith(bare, "\"document_sha256\":")
  right <- paste0("\"document_sha256\":\"", sha256(paste(bare[!is_digest], collapse = "")), "\"")
  if (!identical(sub(",$", "", bare[is_digest]), right)) refuse(path, "changed after it was written")
  fromJSON(paste(lines, collapse = "\n"), simplifyDataFrame = FALSE)
}

# The shards in their order, each of which has the recorded SHA-256.
check_digests <- function(run, manifest) {
  shards <- list.files(file.path(run, "shards"), "^shard-[0-9]+\\.h5$", full.names = TRUE)
  shards <- shards[order(nchar(shards), shards)]
  line <- function(digest, file) paste0(digest, "  ", basename(file), "\n")
  lines <- vapply(shards, function(path) line(digest(file = path, algo = "sha256"), path), "")
  stated <- manifest$shards
  if (is.null(names(stated))) { # earlier versions
    recorded <- vapply(stated, function(each) line(each$sha256, each$file), "")
    stated <- list(count = length(recorded), sha256 = sha256(paste(recorded, collapse = "")))
  }
  if (length(shards) != stated$count || sha256(paste(lines, collapse = "")) != stated$sha256) {
    refuse(file.path(run, "shards"), "not the shards that manifest.json states")
  }
  shards
}

# Whether the mean of each CAM, the bias and the offset make the logit, "-" where nothing says so.
identity_of <- function(row, cams, cam_class, logits, bias, offset, plan) {
  known <- which(cam_class[, row] >= 0)
  classes <- cam_class[known, row] + 1
  cells <- matrix(cams[, , known, row], ncol = length(known))
  gap <- abs(colMeans(cells) + bias[classes] + offset[known, row] - logits[classes, row])
  if (!plan$identity || !length(gap) || !all(is.finite(gap))) return("-")
  if (max(gap) <= TOLERANCE[[plan$precision]] * max(1, abs(logits[, row]))) "holds" else "FAILS"
}

print_rows <- function(path, plan, run_id) {
  if (h5readAttributes(path, "/")$run_id != run_id) refuse(path, "of another run")
  read <- function(name) h5read(path, name)
  cam_class <- read("cam_class") # dimensions come reversed: (M, n)
  has_offset <- "offset" %in% h5ls(path, recursive = FALSE)$name
  offset <- if (has_offset) read("offset") else array(0, dim(cam_class))
  rows <- seq_len(dim(cam_class)[2])
  identity <- vapply(
    rows, identity_of, "", read("cams"), cam_class, read("logits"), read("classifier/bias"), offset, plan
  )
  named <- function(classes) ifelse(classes >= 0, plan$class_names[pmax(classes, 0) + 1], "-")
  confidence <- read("confidence")
  told <- ifelse(is.finite(confidence), sprintf("%.6f", confidence), "-")
  id <- gsub("[\001-\037\177]", "?", read("sample_id"))
  labels <- named(read("label"))
  status <- as.integer(read("status")) # uint8 comes as raw
  writeLines(paste(read("sample_index"), id, labels, named(read("prediction")), told, identity, status, sep = "\t"))
  all(identity != "FAILS")
}

run <- commandArgs(trailingOnly = TRUE)[1]
document <- read_document(file.path(run, "run.json"))
manifest <- read_document(file.path(run, "manifest.json"))
plan <- document$plan
if (!plan$schema_version %in% KNOWN_SCHEMAS) refuse(run, paste0("schema ", plan$schema_version, "; this reads 1 and 2"))
if (manifest$run_id != document$run_id) refuse(run, "run.json and manifest.json are of two runs")
shards <- check_digests(run, manifest)
writeLines(paste("index", "id", "label", "prediction", "confidence", "identity", "status", sep = "\t"))
held <- vapply(shards, print_rows, TRUE, plan, document$run_id)
quit(status = if (all(held)) 0 else 1)
