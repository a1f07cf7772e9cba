function AnalyzeButton({ caseId }) {
  const [jobId, setJobId] = useState(null);
  const [status, setStatus] = useState(null);
  useEffect(() => {
    if (!jobId) return;
    const interval = setInterval(async () => {
      const res = await fetch(`/api/jobs/${jobId}`);
      const job = await res.json();
      setStatus(job);
      if (job.status === "completed" || job.status === "failed") {
        clearInterval(interval);
      }
    }, 2e3);
    return () => clearInterval(interval);
  }, [jobId]);
  const handleClick = async () => {
    const res = await fetch(`/api/cases/${caseId}/analyze-documents-form7801`, {
      method: "POST"
    });
    const { job_id } = await res.json();
    setJobId(job_id);
  };
  return /* @__PURE__ */ React.createElement("div", null, /* @__PURE__ */ React.createElement("button", { onClick: handleClick, disabled: !!jobId }, "Analyze"), status && /* @__PURE__ */ React.createElement("div", null, "Status: ", status.status, " (", status.progress, "%)"));
}
